"""Speed-up and efficiency, computed from elapsed times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mis.scaling.plan import MODES, Cell, Mode


@dataclass(frozen=True)
class Speedup:
    """How many times faster n workers are than a single worker.

    Attributes:
        mode: The mode of the comparison.
        workers: The number of workers, n.
        elapsed_s: Seconds of the list of trials with n workers, the median over the rounds.
        speedup: The elapsed time with a single worker divided by that with n workers of the same round, the median over
            the rounds.
        speedup_min: The lowest speed-up of all rounds.
        speedup_max: The highest speed-up of all rounds.
    """

    mode: Mode
    workers: int
    elapsed_s: float
    speedup: float
    speedup_min: float
    speedup_max: float

    @property
    def efficiency(self) -> float:
        """Speed-up divided by the number of workers."""
        return self.speedup / self.workers


def speedups(elapsed_s: Mapping[Cell, float]) -> list[Speedup]:
    """Compare every cell with the reference of its round.

    Args:
        elapsed_s: Seconds of each cell. Each round has the cell of `experiment` with a single worker, which is the
            reference of both modes.

    >>> times = {Cell("experiment", 1, 0): 8.0, Cell("experiment", 2, 0): 4.0, Cell("data", 2, 0): 5.0}
    >>> [(speedup.mode, speedup.workers, speedup.speedup) for speedup in speedups(times)]
    [('data', 1, 1.0), ('data', 2, 1.6), ('experiment', 1, 1.0), ('experiment', 2, 2.0)]
    """
    reference = {cell.round: seconds for cell, seconds in elapsed_s.items() if cell.workers == 1}
    counts = sorted({cell.workers for cell in elapsed_s})
    return [_compare(mode, count, elapsed_s, reference) for mode in MODES for count in counts]


def _compare(mode: Mode, workers: int, elapsed_s: Mapping[Cell, float], reference: Mapping[int, float]) -> Speedup:
    """Return the speed-up of a mode; `reference` has the seconds with a single worker of each round."""
    rounds: Sequence[tuple[int, float]] = [
        (cell.round, seconds)
        for cell, seconds in elapsed_s.items()
        if cell.workers == workers and (cell.mode == mode or workers == 1)
    ]
    ratios = [reference[round_number] / seconds for round_number, seconds in rounds]
    return Speedup(
        mode=mode,
        workers=workers,
        elapsed_s=median(seconds for _, seconds in rounds),
        speedup=median(ratios),
        speedup_min=min(ratios),
        speedup_max=max(ratios),
    )
