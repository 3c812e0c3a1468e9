"""The speed-up of each mode by the number of devices, simulated."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mis.errors import MisError
from mis.params.scaling import MODES, Mode, hybrid_devices
from mis.scaling.cost_sets import CostSet
from mis.scaling.early_stopping import EarlyStopping
from mis.scaling.pace import CostPace, draw_trials
from mis.scaling.simulate import check_enough, simulate, sizes_of
from mis.scaling.timeline import Timeline
from mis.scaling.workload import Workload

PAPERS_TRIALS = 32
"""Trials of the paper's grid: the list has as many, or as many as there are devices."""


@dataclass(frozen=True)
class SimulatedPoint:
    """What a mode reaches on a number of devices.

    Attributes:
        mode: The mode.
        devices: The number of devices.
        each: The most devices that a trial has had.
        trials: How many trials there are.
        elapsed_s: Seconds of all trials.
        speedup: How many times faster than the same trials on one device, none of them stopped early.
        utilisation: The part of the devices' time in which they had a trial, from 0 to 1.
        device_hours: Hours in which a device had a trial, added up.
    """

    mode: Mode
    devices: int
    each: int
    trials: int
    elapsed_s: float
    speedup: float
    utilisation: float
    device_hours: float

    @property
    def efficiency(self) -> float:
        """Speed-up divided by the number of devices."""
        return self.speedup / self.devices

    def row(self) -> dict[str, object]:
        """Return it as a row of a table."""
        return {**asdict(self), "efficiency": self.efficiency}


def simulate_modes(
    costs: CostSet,
    workload: Workload,
    devices: Sequence[int],
    *,
    trials: int | None = None,
    epochs: int,
    spread: float,
    seed: int = 0,
    stopping: EarlyStopping | None = None,
    modes: Sequence[Mode] = MODES,
) -> list[SimulatedPoint]:
    """Simulate each mode on each number of devices.

    Args:
        costs: The cluster.
        workload: What a trial does in an epoch.
        devices: The numbers of devices.
        trials: How many trials; by default the paper's 32, or as many as there are devices.
        epochs: Epochs of each.
        spread: Standard deviation of the logarithm of the trials' durations.
        seed: Of what is drawn.
        stopping: Who is stopped early; None where nobody is.
        modes: The modes.

    Raises:
        MisError: There are fewer trials than devices.
    """
    points = []
    for count in devices:
        number = max(PAPERS_TRIALS, count) if trials is None else trials
        check_enough(number, count)
        drawn = draw_trials(number, epochs, spread, seed)
        pace = CostPace(costs.costs, workload)
        single_s = simulate(drawn, (1,), pace, (1,)).elapsed_s
        for mode in modes:
            sizes = sizes_of(mode, count, workload, hybrid_devices(count))
            timeline = simulate(drawn, costs.nodes(count), pace, sizes, stopping)
            points.append(point_of(mode, timeline, len(drawn), single_s))
    return points


def point_of(mode: Mode, timeline: Timeline, trials: int, single_s: float) -> SimulatedPoint:
    """Return what a mode reached.

    Args:
        mode: The mode.
        timeline: Who had which devices when.
        trials: How many trials there are.
        single_s: Seconds of the same trials on one device, one after another.
    """
    return SimulatedPoint(
        mode=mode,
        devices=timeline.devices,
        each=max(stretch.place.devices for stretch in timeline.stretches),
        trials=trials,
        elapsed_s=timeline.elapsed_s,
        speedup=single_s / timeline.elapsed_s,
        utilisation=timeline.utilisation,
        device_hours=timeline.device_s / 3600,
    )


def parse_devices(text: str) -> list[int]:
    """Return the numbers in a list such as `1,2,4`; `...` between two of them goes on doubling.

    >>> parse_devices("1,2,4,...,32")
    [1, 2, 4, 8, 16, 32]

    Raises:
        MisError: It is no such list.
    """
    numbers: list[int] = []
    doubling = False
    for part in (part.strip() for part in text.split(",")):
        if part in ("...", "…") and numbers:
            doubling = True
        elif part.isdigit() and int(part) > (numbers[-1] if numbers else 0):
            while doubling and 2 * numbers[-1] < int(part):
                numbers.append(2 * numbers[-1])
            numbers.append(int(part))
            doubling = False
        else:
            numbers = []
            break
    if not numbers or doubling:
        raise MisError("--devices takes rising numbers, as 1,2,4 or 1,2,...,1024", got=text)
    return numbers
