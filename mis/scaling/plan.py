"""The measurements that the comparison of data and experiment parallelism needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["data", "experiment"]
MODES: tuple[Mode, ...] = ("data", "experiment")
MODE_NAMES: dict[str, str] = {"data": "data parallelism", "experiment": "experiment parallelism"}


@dataclass(frozen=True)
class Cell:
    """A cell of the comparison: a mode and a number of workers, with which the list of trials is run once.

    Attributes:
        mode: `data`: each trial after the other, on the devices of all workers; `experiment`: as many trials at the
            same time as there are workers, each on the device of its worker. With a single worker both are the same.
        workers: How many workers there are; each has a single device.
        round: The number of the repetition, from 0.
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


def plan_round(workers: Sequence[int], round_number: int) -> list[Cell]:
    """Return the cells of a round, first the reference with a single worker.

    A round has every cell, so that slow changes of the machine affect all cells alike. The cells whose processes have a
    single device come first and share their processes.

    >>> [(cell.mode, cell.workers) for cell in plan_round([1, 2], 0)]
    [('experiment', 1), ('experiment', 2), ('data', 2)]
    """
    experiment = [Cell("experiment", count, round_number) for count in workers]
    return experiment + [Cell("data", count, round_number) for count in workers if count > 1]
