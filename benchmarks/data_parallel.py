"""How much faster one training gets on several devices, and what the time goes into.

`python benchmarks/data_parallel.py` trains the project's U-Net (8 filters) on phantoms of 64 x 64 x 64
voxels, on one device and on several, each a CPU thread or a GPU: strong scaling (the same global batch)
and weak scaling (two cases on each device), mirrored in one process and over workers. All cells are
measured in turn, several rounds; ratios are those of one round, with their spread. Of each training the
first two epochs do not count: processes are still starting beside it. It prints a table and, with
`--write`, puts it into docs/data_parallel.md (then nothing may be uncommitted). About 20 minutes on two
cores. It compares with the ideal: n devices give n times the cases a second of a single one.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from page import clean_commit, measured_where, write_figures
from tqdm import tqdm

from mis.data.layouts.msd import read_msd
from mis.data.phantom.write import make_phantom
from mis.data.records.writer import write_records
from mis.params.data import PhantomParams
from mis.params.load import load_params
from mis.track.names import SAMPLES_PER_S
from mis.train.cluster import cluster
from mis.train.gang import run_gang

ROOT = Path(__file__).parents[1]
PER_DEVICE = 2
EPOCHS = 4
MEASURED = 2
"""The last epochs of a training, whose mean counts."""
SHARES = ("input", "communication", "compute")


@dataclass(frozen=True)
class Cell:
    """One training: how it is spread, over how many devices, and its global batch."""

    norm: str
    scaling: str
    kind: str
    devices: int
    batch: int

    @property
    def reference(self) -> "Cell":
        """The training on one device that it is compared with."""
        batch = self.batch if self.scaling == "strong" else PER_DEVICE
        return Cell(self.norm, self.scaling, "none", 1, batch)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, help="up to so many; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--norms", nargs="+", default=["group", "batch"])
    parser.add_argument("--cases", type=int, default=24, help="of the phantom; two thirds are trained on")
    parser.add_argument("--write", action="store_true", help="put the table into docs/data_parallel.md")
    options = parser.parse_args(argv)
    if options.write:
        clean_commit(ROOT)
    with TemporaryDirectory() as name, cluster(None) as nodes:
        available = sum(node.gpus for node in nodes) or sum(node.cpus for node in nodes)
        cells = plan(options.norms, min(options.devices or available, available))
        records = make_records(Path(name), options.cases)
        rounds: list[dict[Cell, dict[str, float]]] = []
        with tqdm(total=len(cells) * options.rounds, unit="training") as bar:
            for _ in range(options.rounds):
                rounds.append({})
                for cell in cells:
                    bar.set_postfix_str(f"{cell.norm} {cell.scaling} {cell.kind} {cell.devices}")
                    rounds[-1][cell] = measure(cell, records)
                    bar.update()
    text = "\n".join([measured_on_line(options.rounds), "", *table(cells, rounds)])
    print(text)
    if options.write:
        write_figures(ROOT / "docs" / "data_parallel.md", "benchmarks/data_parallel.py", text)
    return 0


def plan(norms: Sequence[str], available: int) -> list[Cell]:
    """Return the cells: a single device, then 2, 4, 8, ... devices, up to all that are available."""
    counts = [2**power for power in range(1, available.bit_length()) if 2**power <= available]
    cells = []
    for norm in norms:
        for scaling in ("weak", "strong"):
            for devices in (1, *counts):
                batch = PER_DEVICE * (max(counts, default=1) if scaling == "strong" else devices)
                kinds = ("none",) if devices == 1 else ("mirrored", "multiworker")
                cells += [Cell(norm, scaling, kind, devices, batch) for kind in kinds]
    return cells


def make_records(folder: Path, cases: int) -> Path:
    """Write phantoms of 64 x 64 x 64 voxels as records and return their folder."""
    params = load_params(ROOT / "pipelines" / "plain.yaml")
    make_phantom(
        folder / "raw", PhantomParams(layout="msd", cases=cases, unlabelled=0, shape=(64, 64, 64), seed=1), jobs=2
    )
    return write_records(read_msd(folder / "raw"), params.data, folder / "records", jobs=2).folder


def measure(cell: Cell, records: Path) -> dict[str, float]:
    """Train once and return the metrics of the last epochs, as the chief has them."""
    multi = cell.kind == "multiworker"
    workers, devices = (cell.devices, 1) if multi else (1, cell.devices)
    work = partial(train, cell=cell, records=records)
    return dict(run_gang(work, workers=workers, devices_per_worker=devices, threads=1, together=multi))


def train(worker: Any, cell: Cell, records: Path) -> dict[str, float]:  # noqa: ANN401 - a Worker
    """Train in a worker's process, and return the mean metrics of the last epochs."""
    from mis.data.records.reader import read_records
    from mis.train.checkpoint import Checkpoints
    from mis.train.fit import fit
    from mis.train.strategy import make_strategy

    values = {"model.norm": cell.norm, "model.base_filters": 8, "train.epochs": EPOCHS}
    params = load_params(ROOT / "pipelines" / "plain.yaml").override({**values, "train.batch_size": cell.batch})
    strategy = worker.strategy if cell.kind == "multiworker" else make_strategy(worker.devices)
    with TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), writes=worker.is_chief)
        fitted = fit(params.model, params.train, read_records(records), strategy=strategy, checkpoints=checkpoints)
    last = fitted.history[-MEASURED:]
    return {name: statistics.mean(epoch[name] for epoch in last) for name in last[0]}


def measured_on_line(rounds: int) -> str:
    """Return the line of the page that says what the figures were measured on, and how."""
    return measured_where(
        ROOT,
        f"a device is one thread; U-Net of 8 filters, 64 x 64 x 64 voxels; medians of {rounds} interleaved rounds, "
        f"after {EPOCHS - MEASURED} epochs to warm up",
    )


def table(cells: Sequence[Cell], rounds: Sequence[dict[Cell, dict[str, float]]]) -> list[str]:
    """Return the table as Markdown."""
    lines = [
        "| norm | scaling | kind | n | batch | cases/s | times one device | efficiency "
        "| input | communication | computing | what holds it back |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        speeds = [measured[cell][SAMPLES_PER_S] for measured in rounds]
        ratios = [
            speed / measured[cell.reference][SAMPLES_PER_S] for speed, measured in zip(speeds, rounds, strict=True)
        ]
        shares = {
            name: statistics.median(measured[cell][f"time/{name}_share"] for measured in rounds) for name in SHARES
        }
        ratio = statistics.median(ratios)
        lines.append(
            f"| {cell.norm} | {cell.scaling} | {cell.kind} | {cell.devices} | {cell.batch} "
            f"| {statistics.median(speeds):.2f} | {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {ratio / cell.devices:.0%} | {shares['input']:.1%} | {shares['communication']:.1%} "
            f"| {shares['compute']:.1%} | {bottleneck(cell, ratio / cell.devices, shares)} |"
        )
    return lines


def bottleneck(cell: Cell, efficiency: float, shares: dict[str, float]) -> str:
    """Name the largest part of what is lost against as many times one device."""
    if cell.devices == 1:
        return "input" if shares["input"] > 0.1 else "computing"
    parts = {"input": shares["input"], "communication": shares["communication"]}
    parts["shared memory and caches, waiting for each other"] = 1 - efficiency - sum(parts.values())
    return max(parts, key=lambda name: parts[name]) if efficiency < 0.97 else "nothing much"


if __name__ == "__main__":
    sys.exit(main())
