"""How long a training step takes on a CPU: with and without oneDNN, and with each normalisation.

`python benchmarks/cpu_step.py` trains the project's U-Net (8 filters) on random volumes of 64 x 64 x 64 voxels in
batches of two, each kind in another process: with oneDNN, with oneDNN held to AVX2 (what it has on a CPU without
AVX512), and without it. In each process the normalisations take turns; the processes take turns, several rounds. Ratios
are those of one round, with their spread. It prints a table and, with `--write`, puts it into docs/cpu.md (then nothing
may be uncommitted). About 5 minutes on two cores. It compares with Keras' GroupNormalization, and with TensorFlow
without any variable set.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from page import clean_commit, measured_where, write_figures
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
KINDS = {
    "oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "oneDNN, AVX2 alone": {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "no oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}
KERAS_GROUP = "group, as Keras computes it"
NORMS = ("group", KERAS_GROUP, "batch", "none")
STEPS = 3
"""How many steps of each normalisation a process times, after a first step that traces the network."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into docs/cpu.md")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(measure()))
        return 0
    if options.write:
        clean_commit(ROOT)
    rounds: list[dict[str, dict[str, list[float]]]] = []
    with tqdm(total=options.rounds * len(KINDS), unit="process") as bar:
        for _ in range(options.rounds):
            rounds.append({})
            for kind, variables in KINDS.items():
                bar.set_postfix_str(kind)
                rounds[-1][kind] = in_process(variables)
                bar.update()
    text = "\n".join([measured_where(ROOT, f"{options.rounds} rounds"), "", *table(rounds)])
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "cpu.md", "benchmarks/cpu_step.py", text)
    return 0


def in_process(variables: dict[str, str]) -> dict[str, list[float]]:
    """Return the seconds of a training step and of an inference for each normalisation."""
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    seconds: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def measure() -> dict[str, list[float]]:
    """Return the median seconds of a training step and of an inference for each normalisation."""
    from mis.quiet import import_tensorflow

    import_tensorflow()
    import time

    import keras
    import numpy as np

    from mis.model.losses import SegmentationLoss
    from mis.model.unet import connect_unet
    from mis.params.load import load_params
    from mis.train.devices import claim

    claim(1)
    params = load_params(ROOT / "pipelines" / "plain.yaml").model
    image = np.random.default_rng(0).normal(size=(2, 64, 64, 64, 4)).astype(np.float32)
    target = (image[..., :3] > 1).astype(np.float32)

    def network(norm: str) -> keras.Model:
        network = connect_unet(params.model_copy(update={"norm": norm.split(",", maxsplit=1)[0]}), 4, 3)
        model = keras.Model(network.image, network.logits[0])
        if norm == KERAS_GROUP:
            for layer in model.layers:
                vars(layer).pop("call", None)  # the call that computes from sums per channel
        loss = SegmentationLoss("dice", smooth=0.01, tversky_alpha=0.5, focal_gamma=2.0)
        model.compile(optimizer="adam", loss=loss, jit_compile=False)
        return model

    models = {norm: network(norm) for norm in NORMS}
    seconds: dict[str, tuple[list[float], list[float]]] = {norm: ([], []) for norm in NORMS}
    for _ in range(1 + STEPS):
        for norm, model in models.items():
            begun = time.perf_counter()
            model.train_on_batch(image, target)
            trained = time.perf_counter()
            model.predict_on_batch(image)
            seconds[norm][0].append(trained - begun)
            seconds[norm][1].append(time.perf_counter() - trained)
    return {norm: [median(times[1:]) for times in both] for norm, both in seconds.items()}


def table(rounds: Sequence[dict[str, dict[str, list[float]]]]) -> list[str]:
    """Return the table as lines of Markdown: medians, and how many times as long as the first line's of the round."""
    lines = ["| | normalisation | step | times the first line's | inference | times the first line's |"]
    lines += ["|---|---|---|---|---|---|"]
    first = [measured["oneDNN"]["group"] for measured in rounds]
    for kind in KINDS:
        for norm in NORMS:
            cells = []
            for number in range(2):
                seconds = [measured[kind][norm][number] for measured in rounds]
                ratios = [value / base[number] for value, base in zip(seconds, first, strict=True)]
                cells += [f"{median(seconds):.3f} s", f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
            lines.append(f"| {kind} | {norm} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
