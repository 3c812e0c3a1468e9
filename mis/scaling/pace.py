"""How fast simulated trials run: by a cost model, or by what was measured of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf
from random import Random
from typing import Protocol

from mis.scaling import costs as model
from mis.scaling.costs import Costs, Load
from mis.scaling.workload import Workload
from mis.tune.allocation import Place, Speeds


@dataclass(frozen=True)
class SimulatedTrial:
    """A trial of a simulated list.

    Attributes:
        epochs: How many epochs it has if nothing stops it.
        factor: How many times longer it takes than the pace says.
        quality: What it is ranked by where trials are stopped early; the larger the better.
    """

    epochs: int
    factor: float = 1.0
    quality: float = 0.0


def draw_trials(count: int, epochs: int, spread: float, seed: int) -> list[SimulatedTrial]:
    """Return trials whose durations are lognormal: the logarithm has the standard deviation `spread`, and median 1.

    Each trial depends on the seed and its number alone, so that a longer list begins with the shorter one.
    """
    trials = []
    for number in range(count):
        draws = Random(f"{seed}-{number}")  # noqa: S311 - a simulation, nothing secret
        trials.append(SimulatedTrial(epochs, exp(spread * draws.gauss(0.0, 1.0)), draws.random()))
    return trials


class Pace(Protocol):
    """How long the parts of a trial take."""

    @property
    def depends_on_load(self) -> bool:
        """Whether the seconds of an epoch depend on how many devices read at the same time."""

    def epoch_s(self, trial: SimulatedTrial, place: Place, load: Load) -> float:
        """Return the seconds of an epoch."""

    def start_s(self, place: Place) -> float:
        """Return the seconds before the first epoch."""

    def restart_s(self, place: Place) -> float:
        """Return the seconds that a trial loses when it goes on at a place."""

    def speeds(self, nodes: tuple[int, ...], sizes: tuple[int, ...]) -> Speeds:
        """Return how many times faster a trial is on each number of devices."""


@dataclass(frozen=True)
class CostPace:
    """The pace of a cost model. A trial's factor is that of its computing: reading takes each as long.

    Attributes:
        costs: The cost model.
        workload: What each trial does in an epoch.
    """

    costs: Costs
    workload: Workload
    _known: dict[tuple[object, ...], float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def depends_on_load(self) -> bool:
        """Whether a bandwidth that devices share is limited."""
        limits = min(self.costs.shared_bytes_per_s, self.costs.node_bytes_per_s)
        return self.costs.sample_bytes > 0 and limits < inf

    def epoch_s(self, trial: SimulatedTrial, place: Place, load: Load) -> float:
        """Return the seconds of an epoch; what was computed once is looked up."""
        shape = (max(count for _, count in place.counts), len(place.counts), place.devices)
        key = (*shape, trial.factor, load.total, load.on_node)
        if key not in self._known:
            self._known[key] = model.epoch_s(self.costs, self.workload, place, load, trial.factor)
        return self._known[key]

    def start_s(self, place: Place) -> float:
        """Return the seconds before the first epoch."""
        return model.start_s(self.costs, place.devices)

    def restart_s(self, place: Place) -> float:
        """Return the seconds of a restart."""
        return model.restart_s(self.costs, place.devices)

    def speeds(self, nodes: tuple[int, ...], sizes: tuple[int, ...]) -> Speeds:
        """Return the speed-ups by the cost model."""
        return model.speeds(self.costs, self.workload, nodes, sizes)


@dataclass(frozen=True)
class MeasuredPace:
    """The pace of trials that were measured: a trial's factor is the seconds of its epoch on one device.

    Attributes:
        measured: The speed-up by the number of devices.
        start_seconds: Seconds before the first epoch of each trial.
        restart_seconds: Seconds of a restart.
    """

    measured: Mapping[int, float]
    start_seconds: float = 0.0
    restart_seconds: float = 0.0
    depends_on_load: bool = False

    def epoch_s(self, trial: SimulatedTrial, place: Place, load: Load) -> float:  # noqa: ARG002 - as the protocol has it
        """Return the seconds of an epoch."""
        return trial.factor / Speeds(self.measured)(place.devices)

    def start_s(self, place: Place) -> float:  # noqa: ARG002
        """Return the seconds before the first epoch."""
        return self.start_seconds

    def restart_s(self, place: Place) -> float:  # noqa: ARG002
        """Return the seconds of a restart."""
        return self.restart_seconds

    def speeds(self, nodes: tuple[int, ...], sizes: Sequence[int]) -> Speeds:  # noqa: ARG002
        """Return the measured speed-ups."""
        return Speeds(self.measured)
