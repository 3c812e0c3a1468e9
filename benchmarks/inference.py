"""Full-size cases: the time of sliding windows beside MONAI's, and the memory of `python -m mis.predict`.

`python benchmarks/inference.py --peer PYTHON` needs another Python with torch and MONAI, as benchmarks/recipe.py does.
A phantom of 240 x 240 x 155 voxels is preprocessed, and the box of its brain is predicted in windows of 96 x 96 x 96
with half of each in common, Gaussian weights and one window at a time: by `mis.predict.inference` with a U-Net of
params.yaml (instance norm), and by MONAI's SlidingWindowInferer with the same network in PyTorch. Each has predicted a
window before the clock, and both have two threads. They are measured in turn, and compared as ratios.

The memory is the most that the whole command has had, which reads, checks, predicts and writes the case.

It prints a table and, with `--write`, puts it into docs/segmentation.md (then nothing may be uncommitted). 5 minutes on
two cores.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from page import measured_where, write_figures
from peer import peer_parser, read_options

from mis.errors import MisError
from mis.params.load import load_params
from mis.quiet import import_tensorflow

ROOT = Path(__file__).parents[1]
PACKAGES = "torch and MONAI"
SHAPE = (240, 240, 155)
WINDOW, OVERLAP = 96, 0.5
TIME_BAR, MEMORY_BAR_BYTES = 0.8, 4e9

PEER = """
import json, sys, time
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

path, rounds, window, overlap, depth, filters = sys.argv[1], *map(float, sys.argv[2:])
torch.set_num_threads(2)

def block(before, after):
    return nn.Sequential(*(
        layer for first in (before, after) for layer in (
            nn.Conv3d(first, after, 3, padding=1, bias=False), nn.InstanceNorm3d(after, affine=True), nn.ReLU()
        )
    ))

class UNet(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.down = nn.ModuleList(block(a, b) for a, b in zip((4, *widths), widths[:-1]))
        self.bottom = block(widths[-2], widths[-1])
        self.rise = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in zip(widths, widths[1:]))
        self.up = nn.ModuleList(block(2 * width, width) for width in widths[:-1])
        self.last = nn.Conv3d(widths[0], 3, 1)

    def forward(self, x):
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = nn.functional.max_pool3d(x, 2)
        x = self.bottom(x)
        for level in reversed(range(len(skips))):
            x = self.up[level](torch.cat([skips[level], self.rise[level](x)], dim=1))
        return torch.sigmoid(self.last(x))

network = UNet([int(filters) * 2**level for level in range(int(depth) + 1)]).eval()
image = torch.from_numpy(np.moveaxis(np.load(path), -1, 0)[None].astype(np.float32))
windows = []
def predict(batch):
    windows.append(len(batch))
    return network(batch)
infer = SlidingWindowInferer((int(window),) * 3, sw_batch_size=1, overlap=overlap, mode="gaussian")
with torch.no_grad():
    network(torch.zeros(1, 4, *(int(window),) * 3))
    for line in sys.stdin:
        windows.clear()
        begun = time.perf_counter()
        result = infer(image, predict)
        print(json.dumps({"seconds": time.perf_counter() - begun, "windows": sum(windows)}), flush=True)
"""


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write it where that is asked for; 1 where a bar is missed."""
    parser = peer_parser(__doc__.splitlines()[0], PACKAGES)
    parser.add_argument("--rounds", type=int, default=5)
    options = read_options(parser, argv, ROOT)
    with TemporaryDirectory() as name:
        folder = Path(name)
        own = Own(folder)
        with subprocess.Popen(
            [str(part) for part in (options.peer, "-c", PEER, folder / "box.npy", options.rounds, WINDOW, OVERLAP,
             own.params.model.depth, own.params.model.base_filters)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            rounds = [(own.predict(), _ask(process, options.peer)) for _ in range(options.rounds)]
        peak_bytes, seconds = own.command(folder)
    text, met = table(rounds, peak_bytes, seconds)
    text = f"{measured_where(ROOT, own.details)}\n\n{text}"
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "segmentation.md", "benchmarks/inference.py", text)
    return 0 if met else 1


def _ask(process: Any, python: Path) -> dict[str, float]:  # noqa: ANN401
    """Let the peer predict once."""
    try:
        process.stdin.write("\n")
        process.stdin.flush()
        answer: dict[str, float] = json.loads(process.stdout.readline())
    except (OSError, ValueError):
        raise MisError(f"--peer must be a Python with {PACKAGES}", got=python) from None
    return answer


class Own:
    """Our side: a phantom of full size, an untrained U-Net with its card, and its predictions."""

    def __init__(self, folder: Path) -> None:
        """Make all of it in a folder."""
        import_tensorflow()
        from mis.data.check.case import check_case
        from mis.data.phantom.write import make_phantom
        from mis.model.card import ModelCard, add_card
        from mis.model.unet import build_unet
        from mis.predict.cases import read_input
        from mis.predict.inference import Inference, predictor_of
        from mis.predict.session import image_of
        from mis.train.devices import claim

        claim(1)
        self.params = load_params(ROOT / "pipelines" / "plain.yaml", ["model.norm=instance"])
        phantom = self.params.phantom.model_copy(update={"cases": 1, "unlabelled": 1, "shape": SHAPE})
        make_phantom(folder / "phantom", phantom, jobs=2, progress=False)
        data = read_input(folder / "phantom")
        self.case = data.unlabelled[-1].images[0]
        self.image = image_of(check_case(data.unlabelled[-1], data, self.params.data))
        np.save(folder / "box.npy", self.image)
        model = build_unet(self.params.model, 4, 3)
        window = (WINDOW, WINDOW, WINDOW)
        self.model = folder / "model.keras"
        model.save(self.model)
        card = ModelCard(
            modalities=("FLAIR", "T1w", "T1gd", "T2w"), regions=("WT", "TC", "ET"), data=self.params.data, grid=window,
            patch_size=window, multiple=self.params.model.multiple, records="", data_hash=None,
        )  # fmt: skip
        add_card(self.model, card)
        self.predictor = predictor_of(model)
        self.inference = Inference(window, OVERLAP, mirror=False, batch_size=1)
        self.predictor(np.zeros((1, *window, 4), np.float32))
        self.details = (
            f"a brain of {' x '.join(map(str, self.image.shape[:3]))} voxels in {' x '.join(map(str, SHAPE))}, windows "
            f"of {WINDOW}^3, {self.params.model.base_filters} filters, depth {self.params.model.depth}"
        )

    def predict(self) -> dict[str, float]:
        """Predict the brain once, and return the seconds and how many windows it had."""
        import time

        from mis.predict.inference import predict_volume

        windows: list[int] = []
        begun = time.perf_counter()
        predict_volume([self.predictor], self.image, 3, self.inference, windows.append)
        return {"seconds": time.perf_counter() - begun, "windows": sum(windows)}

    def command(self, folder: Path) -> tuple[float, float]:
        """Run `python -m mis.predict` for the case, and return the most memory that it had and how long it took."""
        import time

        begun = time.perf_counter()
        command = [sys.executable, "-m", "mis.predict", "--model", self.model, self.case, folder / "out"]
        process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise MisError("`python -m mis.predict` must end without an error", got=status)
        return usage.ru_maxrss * 1024, time.perf_counter() - begun


def table(
    rounds: Sequence[tuple[dict[str, float], dict[str, float]]], peak_bytes: float, seconds: float
) -> tuple[str, bool]:
    """Return the table in Markdown, and whether the bars are met."""
    own, other = [own for own, _ in rounds], [other for _, other in rounds]
    ratios = [one["seconds"] / two["seconds"] for one, two in rounds]
    lines = ["| | windows | seconds | of MONAI's time |", "|---|---|---|---|"]
    for name, sides, said in (
        ("MONAI's SlidingWindowInferer", other, "1"),
        ("`mis.predict`", own, f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"),
    ):
        times = [side["seconds"] for side in sides]
        spread = f"{median(times):.1f} ({min(times):.1f} to {max(times):.1f})"
        lines.append(f"| {name} | {sides[0]['windows']:.0f} | {spread} | {said} |")
    lines += ["", f"`python -m mis.predict` took at most {peak_bytes / 1e9:.2f} GB and {seconds:.0f} s for the case, "
              "from reading it to the written label map."]  # fmt: skip
    return "\n".join(lines), median(ratios) <= TIME_BAR and peak_bytes <= MEMORY_BAR_BYTES


if __name__ == "__main__":
    sys.exit(main())
