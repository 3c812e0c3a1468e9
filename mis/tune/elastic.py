"""The elastic allocation of a search: which devices each trial has, from what its epochs report.

It remembers what `mis.tune.allocation.assign` is a function of: how long the epochs of each trial take on how many
devices, what a restart costs, who waits. Ray is not known here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from mis.track.names import RESTART_S, RESTARTS, SPEED_PREFIX
from mis.tune.allocation import Cluster, Demand, Place, Speeds, assign

RESTART_COST_S = 30.0
"""Seconds that a restart is taken to cost before one was measured, as in Pollux (Qiao et al., OSDI 2021)."""

UNKNOWN_EPOCH_S = 60.0
"""Seconds of an epoch before any trial has ended one; all trials are alike then, and any number does."""

UNMEASURED = Speeds(per_doubling=0.9)
"""How much faster several devices are taken to be before a trial was on them."""


@dataclass(frozen=True)
class Experience:
    """What is known of elastic trials before a search has measured it itself.

    Attributes:
        restart_s: Seconds that a restart costs.
        speeds: How much faster several devices are.
    """

    restart_s: float
    speeds: Speeds

    @classmethod
    def of(cls, studies: Sequence[Mapping[str, float]]) -> "Experience":
        """Return what earlier studies have measured, each given by its metrics; what none has is taken as usual."""
        restarts_s = [metrics[RESTART_S] for metrics in studies if metrics.get(RESTARTS)]
        speeds: dict[int, list[float]] = {}
        for metrics in studies:
            for name in metrics:
                if name.startswith(SPEED_PREFIX):
                    speeds.setdefault(int(name.removeprefix(SPEED_PREFIX)), []).append(metrics[name])
        return cls(
            median(restarts_s) if restarts_s else RESTART_COST_S,
            Speeds({devices: median(values) for devices, values in speeds.items()}, UNMEASURED.per_doubling),
        )


@dataclass
class _TrialTimes:
    """A trial, and how long its epochs take.

    Attributes:
        sizes: The numbers of devices that it can be spread over.
        place: Its devices; those that it is about to be started on, where it waits for them.
        planned: The devices that it goes on with after its epoch.
        epochs: How many have ended.
        epoch_s: Seconds of its epochs by the number of devices; without the first after each start, which traces.
        first_s: Seconds of the first epoch after the last start, in place of the others until there is one; 0 before.
        start: Which start of the trial its last epoch came from.
        paused_at: When its last epoch on other devices ended, by the clock; None where no restart is being timed.
    """

    sizes: tuple[int, ...]
    place: Place
    planned: Place
    epochs: int = 0
    epoch_s: dict[int, list[float]] = field(default_factory=dict)
    first_s: float = 0.0
    start: str = ""
    paused_at: float | None = None


class ElasticAllocation:
    """Which devices each trial of a search has now, and shall have next.

    Attributes:
        cluster: The nodes with their devices.
        epochs: Epochs of each trial.
        smallest: The fewest devices that a trial has.
        experience: What is known before it was measured here.
        to_come: How many trials have not begun yet: devices are kept for as many as can run at once.
        restarts_s: Seconds that each restart on other devices has cost.
    """

    def __init__(
        self,
        cluster: Cluster,
        epochs: int,
        *,
        trials: int,
        smallest: int = 1,
        experience: Experience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = cluster
        self.epochs = epochs
        self.smallest = smallest
        self.to_come = trials
        self.experience = experience or Experience(RESTART_COST_S, UNMEASURED)
        self.restarts_s: list[float] = []
        self.clock = clock
        self._trials: dict[int, _TrialTimes] = {}
        self._ended: list[_TrialTimes] = []
        self._waiting: dict[int, Demand] = {}
        self._begun: set[int] = set()

    @property
    def restart_s(self) -> float:
        """Seconds that a restart costs: the median of those that were measured."""
        return median(self.restarts_s) if self.restarts_s else self.experience.restart_s

    @property
    def speeds(self) -> Speeds:
        """How much faster trials are on several devices: as measured here, else as known before."""
        known = self.experience.speeds
        return Speeds({**known.measured, **self.measured_speeds}, known.per_doubling)

    @property
    def measured_speeds(self) -> dict[int, float]:
        """How much faster those trials were on several devices that were on several numbers of them, by the number."""
        ratios: dict[int, list[tuple[int, float]]] = {}
        for trial in [*self._ended, *self._trials.values()]:
            fewest, *more = sorted(trial.epoch_s) or [0]
            for devices in more:
                ratio = median(trial.epoch_s[fewest]) / median(trial.epoch_s[devices])
                ratios.setdefault(devices, []).append((fewest, ratio))
        before, measured = self.experience.speeds, dict[int, float]()
        for devices in sorted(ratios):
            known = Speeds({**before.measured, **measured}, before.per_doubling)
            measured[devices] = median(known(fewest) * ratio for fewest, ratio in ratios[devices])
        return measured

    def summary(self) -> dict[str, float]:
        """Return what a study records of it: restarts, what one cost, and how much faster several devices were."""
        speeds = {f"{SPEED_PREFIX}{devices}": speed for devices, speed in self.measured_speeds.items()}
        return {RESTARTS: float(len(self.restarts_s)), RESTART_S: self.restart_s, **speeds}

    def begin(self, number: int, sizes: tuple[int, ...], epochs: int = 0) -> Place | None:
        """Give a trial that begins, or is tried again, its devices; others may have to give some back.

        Args:
            number: The trial's number.
            sizes: The numbers of devices that it can be spread over, rising.
            epochs: How many of its epochs have ended.

        Returns:
            Its devices, which others may still have until the end of their epoch; None where it waits until a trial
            has ended, because all have their smallest share. Devices are kept for it, see `found`.
        """
        if number not in self._begun:
            self._begun.add(number)
            self.to_come = max(0, self.to_come - 1)
        self.end(number)
        # It is not known yet how long it takes: as long as others.
        left_s = (self.epochs - epochs) * self._usual_epoch_s(self.speeds)
        self._waiting[number] = Demand(number, left_s, sizes)
        place = self._plan().get(number)
        if place is not None:
            self.found(number, place, epochs)
        return place

    def found(self, number: int, place: Place, epochs: int = 0) -> None:
        """Note that a trial that waited has devices by now."""
        sizes = self._waiting.pop(number).sizes
        self._trials[number] = _TrialTimes(sizes, place, place, epochs)

    def waits(self, number: int) -> bool:
        """Return whether a trial waits for devices."""
        return number in self._waiting

    def epoch_ended(self, number: int, epoch: int, epoch_s: float, start: str, sizes: tuple[int, ...]) -> None:
        """Note an epoch of a trial.

        Args:
            number: The trial's number.
            epoch: The epoch's number, from 1.
            epoch_s: Its seconds.
            start: Which start of the trial reports it.
            sizes: The numbers of devices that the trial can be spread over now.
        """
        trial = self._trials[number]
        trial.epochs = max(trial.epochs, epoch)
        trial.sizes = sizes
        if start != trial.start:
            trial.start, trial.first_s = start, epoch_s
            if trial.paused_at is not None:
                usual_s = _epoch_s(trial, self.speeds) / self.speeds(trial.place.devices)
                self.restarts_s.append(max(0.0, self.clock() - trial.paused_at - min(epoch_s, usual_s)))
                trial.paused_at = None
        else:
            trial.epoch_s.setdefault(trial.place.devices, []).append(epoch_s)

    def goes_on_with(self, number: int) -> Place:
        """Return the devices that a trial shall have next: where these are others, it is to be restarted on them."""
        trial = self._trials[number]
        if trial.epochs < self.epochs:  # else it has ended
            self._plan()
        return trial.planned

    def restart(self, number: int) -> Place:
        """Note that a trial is restarted on the devices that it shall have, and return them."""
        trial = self._trials[number]
        trial.place, trial.paused_at = trial.planned, self.clock()
        return trial.place

    def place(self, number: int) -> Place | None:
        """Return the devices that a trial has; None for one that is not known."""
        trial = self._trials.get(number)
        return trial.place if trial is not None else None

    def end(self, number: int) -> None:
        """Note that a trial has ended, or has lost its devices; one that is not known changes nothing."""
        self._waiting.pop(number, None)
        trial = self._trials.pop(number, None)
        if trial is not None:
            self._ended.append(trial)

    def set_nodes(self, devices: Sequence[int]) -> None:
        """Note how many devices each node has by now; a node that is lost has none."""
        self.cluster = Cluster(tuple(devices), self.cluster.across_nodes)

    def _plan(self) -> dict[int, Place]:
        """Plan the devices of all trials anew.

        What a trial is to give back it has no more: another one waits for it. What it is to get may still go elsewhere.
        """
        speeds = self.speeds
        usual_s = self._usual_epoch_s(speeds)
        demands = [
            Demand(
                number,
                (self.epochs - trial.epochs) * (_epoch_s(trial, speeds) or usual_s),
                trial.sizes,
                self._held(trial),
            )
            for number, trial in self._trials.items()
        ]
        concurrent = sum(self.cluster.nodes) // self.smallest
        waiting = list(self._waiting.values())
        soon = min(self.to_come, concurrent - len(demands) - len(waiting))
        expected = [Demand(-number, 0.0, (self.smallest,)) for number in range(1, soon + 1)]
        places = assign([*demands, *waiting, *expected], self.cluster, speeds, self.restart_s)
        for number, trial in self._trials.items():
            trial.planned = places.get(number, trial.place)
        return places

    def _held(self, trial: _TrialTimes) -> Place | None:
        """Return the devices that a trial keeps whatever is planned; None where its node is lost."""
        held = trial.planned if trial.planned.devices < trial.place.devices else trial.place
        lost = any(count > self.cluster.nodes[node] for node, count in held.counts)
        return None if lost else held

    def _usual_epoch_s(self, speeds: Speeds) -> float:
        """Return the seconds that an epoch takes on one device, as the median over the trials that have had one."""
        known = [seconds for trial in self._trials.values() if (seconds := _epoch_s(trial, speeds))]
        return median(known) if known else UNKNOWN_EPOCH_S


def _epoch_s(trial: _TrialTimes, speeds: Speeds) -> float:
    """Return the seconds that an epoch of a trial takes on one device; 0 before its first epoch."""
    known = [speeds(devices) * median(seconds) for devices, seconds in trial.epoch_s.items()]
    return median(known) if known else trial.first_s * speeds(trial.place.devices)
