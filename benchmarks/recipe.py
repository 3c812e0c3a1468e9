"""The recipe of pipelines/recipe.yaml beside MONAI's UNet: the same cases, the same time, five seeds.

`python benchmarks/recipe.py --peer PYTHON` needs another Python with torch and MONAI, in an environment of its own:

    python -m venv /tmp/peer && /tmp/peer/bin/pip install torch monai

Both train on the phantom of params.yaml and its split. The peer is MONAI's UNet (8 to 64 channels, two residual units,
instance norm), Dice with cross entropy, AdamW, a polynomial learning rate, reflections, 47 epochs, at the learning rate
of which its validation Dice is best. Its epochs take a time; the recipe gets as many epochs as fit into that, its
tracing included. Validation and a checkpoint after each epoch are part of the time of both. Of both the epoch with the
best validation Dice is scored on the test cases. The two are measured in turn, with the same two threads.

It prints a table and, with `--write`, puts it into docs/segmentation.md (then nothing may be uncommitted). 5 minutes on
two cores.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from page import measured_where, write_figures
from peer import peer_parser, read_options, run_peer

from mis.params.load import Params, load_params
from mis.quiet import import_tensorflow

ROOT = Path(__file__).parents[1]
PACKAGES = "torch and MONAI"
EPOCHS_OF_PEER = 47
RATES_OF_PEER = (1e-3, 3e-3, 1e-2, 3e-2)
BAR = 0.03
"""By how much the recipe's mean region Dice must be above the peer's."""

PEER = """
import json, sys, time
import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

path, seed, epochs, rate, threads, folder = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.manual_seed(int(seed))
rng = np.random.default_rng(int(seed))
with np.load(path) as stored:
    data = {name: torch.from_numpy(np.moveaxis(stored[name], -1, 1).astype(np.float32)) for name in stored}
network = UNet(
    spatial_dims=3, in_channels=4, out_channels=data["train_target"].shape[1], channels=(8, 16, 32, 64),
    strides=(2, 2, 2), num_res_units=2, norm="INSTANCE",
)
count, batch = len(data["train_image"]), 2
optimizer = torch.optim.AdamW(network.parameters(), lr=float(rate), weight_decay=1e-5)
steps = int(epochs) * -(-count // batch)
schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=0.9)
loss_of = DiceCELoss(sigmoid=True)

def dice(part):
    network.eval()
    scores = []
    with torch.no_grad():
        for image, target in zip(data[part + "_image"], data[part + "_target"]):
            predicted, truth = torch.sigmoid(network(image[None]))[0] >= 0.5, target > 0.5
            both = (predicted & truth).sum(dim=(1, 2, 3)).float()
            size = (predicted.sum(dim=(1, 2, 3)) + truth.sum(dim=(1, 2, 3))).float()
            scores.append(float(torch.where(size > 0, 2 * both / size.clamp(min=1), 1.0).mean()))
    network.train()
    return float(np.mean(scores))

begun, best = time.perf_counter(), -1.0
for epoch in range(int(epochs)):
    order = rng.permutation(count)
    for first in range(0, count, batch):
        images, targets = [], []
        for case in order[first : first + batch]:
            axes = [axis for axis in (1, 2, 3) if rng.random() < 0.5]
            images.append(torch.flip(data["train_image"][case], axes))
            targets.append(torch.flip(data["train_target"][case], axes))
        optimizer.zero_grad()
        loss_of(network(torch.stack(images)), torch.stack(targets)).backward()
        optimizer.step()
        schedule.step()
    score = dice("val")
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, folder + "/last.pt")
    if score > best:
        best = score
        torch.save(network.state_dict(), folder + "/best.pt")
seconds = time.perf_counter() - begun
network.load_state_dict(torch.load(folder + "/best.pt"))
versions = {"torch": torch.__version__, "monai": __import__("monai").__version__}
print(json.dumps({"seconds": seconds, "val": best, "test": dice("test"), "epochs": int(epochs), **versions}))
"""


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write it where that is asked for; 1 where the bar is missed."""
    parser = peer_parser(__doc__.splitlines()[0], PACKAGES)
    parser.add_argument("--seeds", type=int, default=5)
    options = read_options(parser, argv, ROOT)
    with TemporaryDirectory() as name:
        folder = Path(name)
        cases, train = prepare(folder)
        rate = max(RATES_OF_PEER, key=lambda rate: peer(options.peer, cases, 0, rate)["val"])
        epochs_for = calibrate(train)
        rows, said = [], {}
        for seed in range(options.seeds):
            other = peer(options.peer, cases, seed, rate)
            own = train(seed, epochs_for(other["seconds"]))
            rows.append((seed, other, own))
            said = other
            print(f"seed {seed}: MONAI {other['test']:.3f} in {other['seconds']:.1f} s, recipe {own['test']:.3f} in "
                  f"{own['seconds']:.1f} s", flush=True)  # fmt: skip
    details = f"MONAI {said['monai']} with PyTorch {said['torch']} at its best learning rate of four, {rate:g}"
    lines, met = table(rows)
    text = "\n".join([measured_where(ROOT, details), "", *lines])
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "segmentation.md", "benchmarks/recipe.py", text)
    return 0 if met else 1


def prepare(folder: Path) -> tuple[Path, Any]:
    """Make the phantom, its records, and its cases as arrays; return these and a function that trains the recipe."""
    import_tensorflow()
    from mis.data.layouts.recognise import read_data
    from mis.data.phantom.write import make_phantom
    from mis.data.pipeline.dataset import case_batches
    from mis.data.records.writer import write_records
    from mis.train.devices import claim
    from mis.train.strategy import make_strategy

    strategy = make_strategy(claim(1))
    params = load_params(ROOT / "pipelines" / "recipe.yaml")
    make_phantom(folder / "phantom", params.phantom, jobs=2, progress=False)
    data = read_data(folder / "phantom")
    records = write_records(data, params.data, folder / "records", jobs=2, progress=False)
    arrays: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        batches = list(case_batches(records, getattr(records.split, part), 1))
        arrays[f"{part}_image"] = np.concatenate([image.numpy() for image, _, _ in batches])
        arrays[f"{part}_target"] = np.concatenate([target.numpy() for _, target, _ in batches])
    np.savez(folder / "cases.npz", **arrays)

    def train(seed: int, epochs: int) -> dict[str, float]:
        return _train(params, seed, epochs, records=records, data=data, strategy=strategy)

    return folder / "cases.npz", train


def _train(params: Params, seed: int, epochs: int, *, records: Any, data: Any, strategy: Any) -> dict[str, float]:  # noqa: ANN401
    """Train the recipe, and score its best model on the test cases."""
    from mis.evaluate.cases import predict_cases
    from mis.predict.model import load_segmenter
    from mis.train.checkpoint import Checkpoints
    from mis.train.fit import fit

    wanted = params.override({"train.seed": seed, "train.epochs": epochs, "train.patience": epochs})
    with TemporaryDirectory() as name:
        checkpoints = Checkpoints(Path(name) / "checkpoints")
        fitted = fit(wanted.model, wanted.train, records, strategy=strategy, checkpoints=checkpoints)
        predictions = predict_cases(
            load_segmenter([fitted.best_model]), records, records.split.test, wanted.predict,
            data=data, convention="brats2023",
        )  # fmt: skip
        test = mean(prediction.scores.mean for prediction in predictions)
    epoch_s = [epoch["time/epoch_s"] for epoch in fitted.history]
    return {
        "seconds": fitted.elapsed_s, "val": fitted.best["val/dice"], "test": test, "epochs": epochs,
        "first_s": epoch_s[0], "epoch_s": float(np.median(epoch_s[1:])),
    }  # fmt: skip


def calibrate(train: Any) -> Any:  # noqa: ANN401
    """Return the function that says how many epochs of the recipe fit into some seconds, from a short training."""
    short = train(99, 6)

    def epochs_for(seconds: float) -> int:
        return int(1 + (seconds - short["first_s"]) / (1.12 * short["epoch_s"]))

    return epochs_for


def peer(python: Path, cases: Path, seed: int, rate: float) -> dict[str, Any]:
    """Train MONAI's UNet in its own environment."""
    with TemporaryDirectory() as folder:
        printed = run_peer(python, PEER, cases, seed, EPOCHS_OF_PEER, rate, 2, folder, packages=PACKAGES)
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def table(rows: Sequence[tuple[int, dict[str, Any], dict[str, Any]]]) -> tuple[list[str], bool]:
    """Return the table as lines of Markdown, and whether the bar is met."""
    lines = [
        "| seed | MONAI: seconds | epochs | test Dice | recipe: seconds | epochs | test Dice | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for seed, other, own in rows:
        lines.append(
            f"| {seed} | {other['seconds']:.1f} | {other['epochs']} | {other['test']:.3f} | {own['seconds']:.1f} | "
            f"{own['epochs']} | {own['test']:.3f} | {own['test'] - other['test']:+.3f} |"
        )
    others, owns = [other["test"] for _, other, _ in rows], [own["test"] for _, _, own in rows]
    difference = mean(owns) - mean(others)
    slower = [own["seconds"] / other["seconds"] for _, other, own in rows]
    lines.append(
        f"| mean | | | {mean(others):.3f} ({min(others):.3f} to {max(others):.3f}) | | | {mean(owns):.3f} "
        f"({min(owns):.3f} to {max(owns):.3f}) | {difference:+.3f} |"
    )
    met = difference >= BAR and mean(slower) <= 1
    lines += ["", f"The recipe took {mean(slower):.2f} of the peer's time ({min(slower):.2f} to {max(slower):.2f})."]
    return lines, met


if __name__ == "__main__":
    sys.exit(main())
