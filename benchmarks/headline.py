"""Write the answer that README.md opens with: the speed-ups of the four modes, from the tables of docs/scaling.md.

`python benchmarks/headline.py`, after the programs that write these tables. It measures nothing; it takes what was
measured, emulated and simulated on the most devices each, and the paper's two figures.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from page import END, write_figures

from mis.params.scaling import MODES
from mis.scaling.reported import GPUS, REPORTED

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Write the table."""
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    text = "\n".join(_lines(page))
    print(text)
    write_figures(ROOT / "README.md", "benchmarks/headline.py", text)
    return 0


def _lines(page: str) -> Iterator[str]:
    yield "| | " + " | ".join(MODES) + " |"
    yield "|---" * (1 + len(MODES)) + "|"
    yield _line(f"the paper, {GPUS} V100", {mode: f"x{speedup:g}" for mode, speedup in REPORTED.items()})
    for program, what in (("modes", "measured, {} devices"), ("orchestration", "emulated, {} devices")):
        for devices, speedups in sorted(_speedups(page, f"benchmarks/{program}.py").items()):
            if devices > 1:
                yield _line(what.format(devices), speedups)
    rows = [row for row in _rows(page, "benchmarks/simulation.py") if len(row) == 1 + len(MODES) and row[0].isdigit()]
    *_, last = (row for row in rows if all(cell.startswith("x") for cell in row[1:]))
    yield _line(f"simulated, {last[0]} devices", dict(zip(MODES, last[1:], strict=True)))


def _line(name: str, speedups: dict[str, str]) -> str:
    return f"| {name} | " + " | ".join(_rounded(speedups.get(mode, "")) for mode in MODES) + " |"


def _rounded(speedup: str) -> str:
    """Return a speed-up with no more digits than are worth reading."""
    value = float(speedup.removeprefix("x")) if speedup else 0.0
    return f"x{value:.0f}" if value >= 100 else speedup


def _speedups(page: str, program: str) -> dict[int, dict[str, str]]:
    """Return the speed-ups of a program's table by the number of devices and the mode."""
    found: dict[int, dict[str, str]] = {}
    for row in _rows(page, program):
        mode = row[1].split(",")[0] if len(row) > 1 else ""
        speedup = next((cell for cell in row if re.fullmatch(r"x[\d.]+", cell)), None)
        if row[0].isdigit() and mode in MODES and speedup is not None:
            found.setdefault(int(row[0]), {})[mode] = speedup
    return found


def _rows(page: str, program: str) -> list[list[str]]:
    """Return the cells of all lines of the tables that a program has written."""
    _, _, rest = page.partition(f"<!-- figures: written by {program} -->")
    written, _, _ = rest.partition(END)
    lines = (line for line in written.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


if __name__ == "__main__":
    sys.exit(main())
