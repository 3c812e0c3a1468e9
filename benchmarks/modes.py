"""What four modes of using several devices reach with real trainings, on the devices of this machine.

`python benchmarks/modes.py` runs `python -m mis.scaling measure` with the project's U-Net (8 filters, group norm) on
phantoms of 64 x 64 x 64 voxels: four trials of a batch of 4, on 1, 2, 4, ... devices, each mode in every round, in a
random order. It prints a table, and beside it the error of the simulator's prediction of each cell from the other
rounds. With `--write` it puts it and its pictures into docs/scaling.md (then nothing may be uncommitted); `--json FILE`
has the figures, also for `python -m mis.scaling simulate --against FILE`. About 30 minutes on two cores. It compares
with the ideal: n devices are n times as fast as one.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from data_parallel import make_records
from page import clean_commit, measured_where, write_figures

from mis.files import new_file, write_json
from mis.params.load import Params, load_params
from mis.params.scaling import MODES
from mis.report.scaling_figures import pictures
from mis.scaling.against import MeasuredRun, compare_with
from mis.scaling.comparison import Comparison
from mis.scaling.session import compare
from mis.settings import load_settings
from mis.track.provenance import machine
from mis.train.allocate import device_counts
from mis.train.cluster import cluster

ROOT = Path(__file__).parents[1]
RATES = (1e-3, 2e-3, 3e-3, 5e-3)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, help="up to so many; all by default")
    parser.add_argument("--trials", type=int, default=len(RATES))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--cases", type=int, default=96, help="of the phantom; two thirds are trained on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scaling.md")
    options = parser.parse_args(argv)
    if options.write:
        clean_commit(ROOT)
    settings = load_settings(start=ROOT)
    with TemporaryDirectory() as name:
        records = make_records(Path(name), options.cases)
        with cluster(settings.ray_address) as nodes:
            available = sum(device_counts(nodes))
            params = benchmark_params(min(options.devices or available, available), options)
            comparison = compare(params, replace(settings, records_folder=records), pictures)
    text = "\n".join([measured_on_line(options), "", *table(comparison)])
    print(text)
    if options.json:
        write_json(options.json, comparison.to_json())
    if options.write:
        write_figures(ROOT / "docs" / "scaling.md", "benchmarks/modes.py", text)
        for picture, png in pictures(comparison.cells).items():
            with new_file(ROOT / "docs" / f"modes-{picture}.png") as unfinished:
                unfinished.write_bytes(png)
    return 0


def benchmark_params(available: int, options: argparse.Namespace) -> Params:
    """Return the parameters of the comparison."""
    counts = [2**power for power in range(available.bit_length()) if 2**power <= available]
    return load_params(ROOT / "pipelines" / "plain.yaml").override(
        {
            "model.base_filters": 8,
            "model.norm": "group",
            "train.batch_size": 4,
            "scaling.devices": counts,
            "scaling.modes": list(options.modes),
            "scaling.epochs": options.epochs,
            "scaling.rounds": options.rounds,
            "scaling.trials": [{"train.learning_rate": RATES[number % len(RATES)]} for number in range(options.trials)],
        }
    )


def measured_on_line(options: argparse.Namespace) -> str:
    """Return the line that says what the figures were measured on, and how."""
    kind = "GPU" if "gpus" in machine() else "CPU core"
    return measured_where(
        ROOT,
        f"a device is one {kind}; U-Net of 8 filters with group norm, 64 x 64 x 64 voxels, {options.trials} trials of "
        f"{options.epochs} epochs in batches of 4; medians of {options.rounds} rounds",
    )


def table(comparison: Comparison) -> list[str]:
    """Return the table as Markdown."""
    errors: dict[tuple[str, int], list[float]] = {}
    for run in (MeasuredRun.model_validate(run) for run in comparison.runs()):
        errors.setdefault((run.mode, run.devices), []).append(compare_with(run).error)
    lines = [
        "| devices | mode | seconds | speed-up | lowest to highest | efficiency | in use | device-hours "
        "| cold start, s | simulation error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for point in sorted(comparison.speedups, key=lambda point: point.devices):
        if (point.mode, point.devices) not in errors:
            continue  # one device stands once
        error = errors[point.mode, point.devices]
        lines.append(
            f"| {point.devices} | {'one device' if point.devices == 1 else point.mode} | {point.elapsed_s:.1f} "
            f"| x{point.speedup:.2f} | {point.speedup_min:.2f} to {point.speedup_max:.2f} | {point.efficiency:.0%} "
            f"| {point.utilisation:.0%} | {point.device_hours:.3f} | {point.cold_s:.1f} "
            f"| {median(error):+.1%} ({min(error):+.1%} to {max(error):+.1%}) |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
