"""The four modes on 1 to 1024 devices, simulated, with the errors of the simulator; a page and a picture of it.

`python benchmarks/simulation.py` prints the tables that `python -m mis.scaling simulate` computes: the speed-up of each
mode, the paper's two figures explained, the model against published tables, and with `--against FILE` the simulator
against runs that `benchmarks/orchestration.py --json FILE` has written. With `--write` they go into docs/scaling.md,
and the picture into docs/scaling.png (then nothing may be uncommitted). Half a minute; it compares with the ideal.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from page import clean_commit, measured_where, write_figures

from mis.files import new_file, write_json
from mis.params.scaling import MODES
from mis.report.scaling_simulated import curves
from mis.scaling.curves import SimulatedPoint, parse_devices, simulate_modes
from mis.scaling.pace import MeasuredPace, draw_trials
from mis.scaling.paper import cluster, with_records_in_memory
from mis.scaling.simulate import simulate
from mis.scaling.tables import against_rows, paper_tables, published_rows
from mis.scaling.workload import Workload
from mis.style import png
from mis.tune.allocation import Speeds

ROOT = Path(__file__).parents[1]
DEVICES = "1,2,...,1024"
EPOCHS, SPREAD, BATCH = 30, 0.3, 16


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, and write them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, nargs="+", default=(), metavar="FILE", help="runs that were emulated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--write", action="store_true", help="put all of it into docs/scaling.md")
    options = parser.parse_args(argv)
    if options.write:
        clean_commit(ROOT)
    costs = with_records_in_memory(cluster())
    points = simulate_modes(
        costs, Workload(338, 73, BATCH), parse_devices(DEVICES), epochs=EPOCHS, spread=SPREAD, seed=0
    )
    text = "\n".join(_page(points, options.against))
    print(text)
    if options.json:
        figures = {"modes": [point.row() for point in points], "published": published_rows(), **paper_tables()}
        write_json(options.json, figures | {"against": [row for path in options.against for row in against_rows(path)]})
    if options.write:
        write_figures(ROOT / "docs" / "scaling.md", "benchmarks/simulation.py", text)
        with new_file(ROOT / "docs" / "scaling.png") as unfinished:
            unfinished.write_bytes(png(curves(points, "Simulated: the paper's cluster, with our records in memory")))
    return 0


def _page(points: Sequence[SimulatedPoint], against: Sequence[Path]) -> Iterator[str]:
    yield measured_where(
        ROOT,
        "simulated: the paper's cluster, with our records in the memory of each node; as many trials as devices, at "
        f"least the paper's 32; {EPOCHS} epochs; durations lognormal with a sigma of {SPREAD}; a batch of {BATCH}",
    )
    yield from ("", "| devices | " + " | ".join(MODES) + " |", "|---" * (1 + len(MODES)) + "|")
    for devices in sorted({point.devices for point in points}):
        reached = {point.mode: point.speedup for point in points if point.devices == devices}
        yield f"| {devices} | " + " | ".join(f"x{reached[mode]:.1f}" for mode in MODES) + " |"
    yield from ("", doublings())
    if against:
        yield from ("", "The simulator against emulated runs:", "", "| devices | mode | seconds | simulated | error |")
        yield "|---|---|---|---|---|"
        for row in (row for path in against for row in against_rows(path)):
            seconds = f"{row['elapsed_s']:.1f} | {row['simulated_s']:.1f}"
            yield f"| {row['devices']} | {row['mode']} | {seconds} | {row['error']:+.1%} |"
    yield from ("", "The model against published tables, a half fitted, a half predicted:", "")
    yield from ("| what | machine | devices | half | published | model | error |", "|---|---|---|---|---|---|---|")
    for row in published_rows():
        figures = f"{row['published']:g} | {row['predicted']:.4g} | {row['error']:+.1%}"
        yield f"| {row['what']} | {row['machine']} | {row['devices']} | {row['half']} | {figures} |"
    explained = paper_tables()
    for title, columns in PAPERS_COLUMNS.items():
        yield from (
            "",
            f"{title[0].upper()}{title[1:]}:",
            "",
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
        )
        for row in explained[title]:
            yield f"| {' | '.join(_cell(row, column) for column in columns)} |"


def doublings(count: int = 2000) -> str:
    """Return how often twice as many devices are slower with elastic allocation, over random lists of trials."""
    draws, longer = Random(0), list[float]()  # noqa: S311 - nothing secret
    for number in range(count):
        devices, epochs = draws.randint(1, 16), draws.randint(2, 20)
        trials = draw_trials(2 * devices + draws.randint(0, 16), epochs, SPREAD, number)
        speeds = Speeds(per_doubling=draws.uniform(0.7, 1.0))
        sizes = (1, 2, 4, 8, 16)
        pace = MeasuredPace({size: speeds(size) for size in sizes}, restart_seconds=draws.uniform(0.0, 1.0))
        once_s, twice_s = (simulate(trials, (total,), pace, sizes).elapsed_s for total in (devices, 2 * devices))
        longer.append(twice_s / once_s - 1)
    slower = [share for share in longer if share > 1e-9]
    worst = f", by {max(slower):.1%} at most" if slower else ""
    return (
        f"Of {count} random lists (up to 20 epochs of a trial, a restart of up to one epoch) {len(slower)} take longer "
        f"with elastic allocation on twice as many devices{worst}."
    )


PAPERS_COLUMNS = {
    "the parameters": ("parameter", "value", "source", "note"),
    "the paper's two modes on its cluster": ("devices", "mode", "speedup", "reported"),
    "the two speed-ups where an assumed parameter is another one": ("parameter", "times", "data", "experiment"),
    "the same cluster, step by step": ("step", "mode", "speedup", "device_hours"),
}


def _cell(row: Mapping[str, object], column: str) -> str:
    value = row[column]
    if value is None:
        return "no limit" if column == "value" else ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
