"""Which measurements the comparison of the two modes needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["data", "experiment"]
MODES: tuple[Mode, ...] = ("data", "experiment")
MODE_NAMES: dict[str, str] = {"data": "data parallelism", "experiment": "experiment parallelism"}


@dataclass(frozen=True)
class Cell:
    """One measurement: the list of trials, once.

    Attributes:
        mode: `data`: trials one after another, each on all workers' devices; `experiment`: as many
            trials at once as there are workers, each on one device. With one worker both are the same.
        workers: How many workers; each is one device.
        round: Which repetition, from 0.
    """

    mode: Mode
    workers: int
    round: int

    @property
    def processes(self) -> int:
        """How many processes train at the same time."""
        return self.workers if self.mode == "experiment" else 1

    @property
    def devices(self) -> int:
        """How many devices each process has."""
        return self.workers // self.processes


def plan_round(workers: Sequence[int], number: int) -> list[Cell]:
    """Return the cells of one round, the reference (one worker) first.

    Rounds are interleaved: what changes slowly on a machine changes for all cells alike. The
    cells with one device a process come first, so that they can share their processes.

    >>> [(cell.mode, cell.workers) for cell in plan_round([1, 2], 0)]
    [('experiment', 1), ('experiment', 2), ('data', 2)]
    """
    experiment = [Cell("experiment", count, number) for count in workers]
    return experiment + [Cell("data", count, number) for count in workers if count > 1]
