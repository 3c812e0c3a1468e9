"""Speed-up and efficiency of each mode, from what its cells have taken."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from mis.params.scaling import MODES, Mode
from mis.scaling.plan import Cell


@dataclass(frozen=True)
class CellFigures:
    """What a cell has taken.

    Attributes:
        cell: The cell.
        elapsed_s: Seconds of the list of trials.
        cold_s: Seconds before the clock, in which processes were started and networks traced.
        utilisation: The part of the devices' time in which they had a trial, from 0 to 1.
        device_hours: Hours in which a device had a trial, added up.
        target_s: When the first trial had reached the target Dice; None where none has.
    """

    cell: Cell
    elapsed_s: float
    cold_s: float = 0.0
    utilisation: float = 1.0
    device_hours: float = 0.0
    target_s: float | None = None


@dataclass(frozen=True)
class Speedup:
    """How many times faster a mode is on n devices than on one; all but the spread are medians over the rounds.

    Attributes:
        mode: The mode.
        devices: The number of devices, n.
        elapsed_s: Seconds of the list of trials.
        speedup: The elapsed time on one device divided by that on n devices of the same round.
        speedup_min: The lowest speed-up of all rounds.
        speedup_max: The highest speed-up of all rounds.
        cold_s: Seconds before the clock, in which processes were started and networks traced.
        utilisation: The part of the devices' time in which they had a trial, from 0 to 1.
        device_hours: Hours in which a device had a trial, added up.
        target_s: When the first trial had reached the target Dice; None where one has not in each round.
    """

    mode: Mode
    devices: int
    elapsed_s: float
    speedup: float
    speedup_min: float
    speedup_max: float
    cold_s: float = 0.0
    utilisation: float = 1.0
    device_hours: float = 0.0
    target_s: float | None = None

    @property
    def efficiency(self) -> float:
        """Speed-up divided by the number of devices."""
        return self.speedup / self.devices


def speedups(cells: Iterable[CellFigures]) -> list[Speedup]:
    """Compare every cell with the reference of its round, which has one device.

    >>> cells = [CellFigures(Cell("data", 1, 1, 0), 8.0), CellFigures(Cell("data", 2, 2, 0), 5.0)]
    >>> [(speedup.mode, speedup.devices, speedup.speedup) for speedup in speedups(cells)]
    [('data', 1, 1.0), ('data', 2, 1.6)]
    """
    measured = list(cells)
    reference_s = {figures.cell.round: figures.elapsed_s for figures in measured if figures.cell.devices == 1}
    single = [figures for figures in measured if figures.cell.devices == 1]
    several = [figures for figures in measured if figures.cell.devices > 1]
    modes = [mode for mode in MODES if any(figures.cell.mode == mode for figures in several or single)]
    compared = []
    for mode in modes:
        compared.append(_compare(mode, single, reference_s))
        of_mode = [figures for figures in several if figures.cell.mode == mode]
        for devices in sorted({figures.cell.devices for figures in of_mode}):
            rounds = [figures for figures in of_mode if figures.cell.devices == devices]
            compared.append(_compare(mode, rounds, reference_s))
    return compared


def _compare(mode: Mode, rounds: Sequence[CellFigures], reference_s: dict[int, float]) -> Speedup:
    """Return the speed-up of a mode on a number of devices."""
    ratios = [reference_s[figures.cell.round] / figures.elapsed_s for figures in rounds]
    targets_s = [figures.target_s for figures in rounds if figures.target_s is not None]
    return Speedup(
        mode=mode,
        devices=rounds[0].cell.devices,
        elapsed_s=median(figures.elapsed_s for figures in rounds),
        speedup=median(ratios),
        speedup_min=min(ratios),
        speedup_max=max(ratios),
        cold_s=median(figures.cold_s for figures in rounds),
        utilisation=median(figures.utilisation for figures in rounds),
        device_hours=median(figures.device_hours for figures in rounds),
        target_s=median(targets_s) if len(targets_s) == len(rounds) else None,
    )
