"""The cells that the comparison of the modes measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from mis.params.scaling import MODES, Mode, ScalingParams, each_of

MODE_NAMES: dict[str, str] = {mode: f"{mode} parallelism" for mode in MODES}


@dataclass(frozen=True, order=True)
class Cell:
    """A cell of the comparison: a mode and a number of devices, with which the list of trials is run once.

    Attributes:
        mode: The mode; with a single device all are the same.
        devices: How many devices there are.
        each: How many of them a trial begins with; only an elastic one may get more.
        round: The number of the repetition, from 0.
    """

    mode: Mode
    devices: int
    each: int
    round: int

    @property
    def name(self) -> str:
        """The cell as it is shown."""
        each = f", {self.each} each" if self.mode == "hybrid" else ""
        return f"{self.mode} on {self.devices}{each}"


def plan(params: ScalingParams) -> list[Cell]:
    """Return all cells, round after round."""
    return [cell for number in range(params.rounds) for cell in plan_round(params, number)]


def plan_round(params: ScalingParams, number: int) -> list[Cell]:
    """Return the cells of a round, in a random order that depends on the number of the round alone.

    A round has every cell, so that slow changes of the machine affect all cells alike. One device is measured once: it
    is the reference of every mode.
    """
    cells = [Cell(params.modes[0], 1, 1, number)]
    for devices in params.devices:
        if devices > 1:
            cells += [
                Cell(mode, devices, each_of(mode, devices, params.hybrid_devices), number) for mode in params.modes
            ]
    Random(number).shuffle(cells)  # noqa: S311 - nothing secret
    return cells


def nodes_of(available: Sequence[int], devices: int) -> tuple[int, ...]:
    """Return how many devices of each node a cell with so many devices has: those of the first nodes.

    >>> nodes_of((4, 4, 4), 6)
    (4, 2, 0)
    """
    nodes, left = [], devices
    for count in available:
        nodes.append(min(count, left))
        left -= nodes[-1]
    return tuple(nodes)
