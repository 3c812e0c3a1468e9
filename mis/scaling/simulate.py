"""A list of trials on a cluster, simulated: discrete events, and the allocation of `mis.tune.allocation`.

Between two events every running trial has a constant pace. An event is the end of a trial, a rung of early stopping, or
the end of an epoch after which a trial is to get other devices; only there does a trial change its devices. Where
devices share a file system, every trial's pace follows how many of them read at that moment.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mis.errors import MisError
from mis.params.scaling import Mode, each_of
from mis.scaling.costs import full_load, load_of
from mis.scaling.early_stopping import EarlyStopping
from mis.scaling.pace import Pace, SimulatedTrial
from mis.scaling.timeline import Stretch, Timeline
from mis.scaling.workload import Workload
from mis.tune.allocation import Cluster, Demand, Place, assign, sizes_for

SAME_MOMENT_S = 1e-9
"""Events that are no further apart happen at the same time."""


def sizes_of(mode: Mode, devices: int, workload: Workload, hybrid: int = 2) -> tuple[int, ...]:
    """Return the numbers of devices that a trial of a mode may have.

    A mode that wants more than the batch can be spread over takes the most that it can. Elastic trials keep their
    batch.

    >>> [sizes_of(mode, 4, Workload(10, 2, batch_size=4)) for mode in ("data", "experiment", "hybrid", "elastic")]
    [(4,), (1,), (2,), (1, 2, 4)]
    """
    if mode == "elastic":
        return sizes_for(workload.batch_size, devices)
    return (workload.largest_size(each_of(mode, devices, hybrid)),)


def check_enough(trials: int, devices: int) -> None:
    """Check that no mode has devices without a trial because the list is too short for it.

    Raises:
        MisError: There are fewer trials than devices.
    """
    if trials < devices:
        raise MisError(
            f"the list must have at least as many trials as there are devices, {devices}",
            got=trials,
            do=f"add --trials {devices}: fewer would compare a mode with idle devices",
        )


def simulate(
    trials: Sequence[SimulatedTrial],
    nodes: Sequence[int],
    pace: Pace,
    sizes: Sequence[int],
    stopping: EarlyStopping | None = None,
) -> Timeline:
    """Run a list of trials, in its order.

    Args:
        trials: The trials.
        nodes: How many devices each node has.
        pace: How fast trials are.
        sizes: The numbers of devices that a trial may have, rising; with more than one it is elastic.
        stopping: Who is stopped early; its state is not changed. None where no trial is.

    Returns:
        Which trial had which devices when.
    """
    fresh = replace(stopping, _reached={}) if stopping is not None else None
    return _Simulation(trials, tuple(nodes), pace, tuple(sizes), fresh).run()


@dataclass
class _Running:
    """A trial that has devices.

    Attributes:
        place: Its devices.
        target: The devices that it is to have after its epoch.
        begin_s: When it got its devices.
        first_epoch: The epochs that it had by then.
        setup_s: Seconds of its start or restart that are left.
        done: Epochs that have ended; the part of the present one is in it.
        at_s: The moment to which `setup_s` and `done` belong.
        epoch_s: Seconds of an epoch at present.
        milestone: The number of epochs after which something happens to it next.
        version: How often that has been planned: earlier plans are void.
    """

    place: Place
    target: Place
    begin_s: float
    first_epoch: int
    setup_s: float
    done: float
    at_s: float
    epoch_s: float
    milestone: int = 0
    version: int = 0

    def advance(self, now_s: float) -> None:
        """Go on to a moment at the present pace."""
        passed_s = now_s - self.at_s
        in_setup_s = min(self.setup_s, passed_s)
        self.setup_s -= in_setup_s
        if passed_s > in_setup_s:
            self.done += (passed_s - in_setup_s) / self.epoch_s
        self.at_s = now_s


class _Simulation:
    """The state of a simulation at one moment.

    Attributes:
        waiting: The trials that have not begun; the next one is the last.
        running: The trials that have devices.
        busy: How many devices of each node have a trial.
    """

    def __init__(
        self,
        trials: Sequence[SimulatedTrial],
        nodes: tuple[int, ...],
        pace: Pace,
        sizes: tuple[int, ...],
        stopping: EarlyStopping | None,
    ) -> None:
        self.trials, self.nodes, self.pace, self.sizes, self.stopping = trials, nodes, pace, sizes, stopping
        self.cluster = Cluster(nodes)
        self.at_once = sum(nodes) // sizes[0]
        self.waiting = list(range(len(trials)))[::-1]
        self.running: dict[int, _Running] = {}
        self.busy = [0] * len(nodes)
        self.stretches: list[Stretch] = []
        self.events: list[tuple[float, int, int]] = []
        self.speeds = pace.speeds(nodes, sizes)
        whole = Place(((max(range(len(nodes)), key=lambda node: nodes[node]), sizes[-1]),))
        self.restart_s = pace.restart_s(whole)
        single = Place(((0, 1),))
        self.single_s = [pace.epoch_s(trial, single, full_load(nodes)) for trial in trials]

    def run(self) -> Timeline:
        """Return the timeline of the whole list."""
        self._allocate(0.0, set())
        while self.events:
            now_s, at_milestone = self._next_event()
            if not at_milestone:
                continue
            ended = {trial for trial in sorted(at_milestone) if self._ends(trial)}
            for trial in sorted(ended):
                self._leave(trial, now_s)
            to_change = {trial for trial in at_milestone - ended if self._is_to_change(trial)}
            for trial in at_milestone - ended:
                self._plan(trial)
            if ended or to_change:
                self._allocate(now_s, to_change)
        return Timeline(self.nodes, tuple(sorted(self.stretches, key=lambda part: (part.begin_s, part.trial))))

    def _next_event(self) -> tuple[float, set[int]]:
        """Return the next moment, and the trials that reach their milestone at it."""
        now_s, reached = self.events[0][0], set()
        while self.events and self.events[0][0] <= now_s + SAME_MOMENT_S:
            _, trial, version = heapq.heappop(self.events)
            state = self.running.get(trial)
            if state is not None and state.version == version:
                state.done, state.setup_s, state.at_s = float(state.milestone), 0.0, now_s
                reached.add(trial)
        return now_s, reached

    def _ends(self, trial: int) -> bool:
        """Return whether a trial at its milestone has had all its epochs, or is stopped early."""
        epochs = round(self.running[trial].done)
        if epochs >= self.trials[trial].epochs:
            return True
        if self.stopping is None or self.stopping.next_rung(epochs - 1) != epochs:
            return False
        return self.stopping.stops(epochs, self.trials[trial].quality)

    def _is_to_change(self, trial: int) -> bool:
        state = self.running[trial]
        return state.target != state.place

    def _allocate(self, now_s: float, may_change: set[int]) -> None:
        """Give devices to the trials that can have them now, and say what the others are to have after their epoch.

        Args:
            now_s: The moment.
            may_change: The trials that have just ended an epoch.
        """
        moved = {-1}
        while moved:  # what the moved ones have left may be another one's
            places = self._assigned(now_s)
            moved = {trial for trial in sorted(may_change) if self._move(trial, places[trial], now_s)}
            may_change = may_change - moved
            began = self._begin(places, now_s)
            for trial in self.running.keys() - began:
                self._aim(trial, places[trial])
        if self.pace.depends_on_load:
            self._keep_pace(now_s)

    def _assigned(self, now_s: float) -> Mapping[int, Place]:
        demands = []
        for trial, state in self.running.items():
            state.advance(now_s)
            left = self.trials[trial].epochs - state.done
            demands.append(Demand(trial, left * self.single_s[trial], self.sizes, state.place))
        could_begin = max(1, self.at_once - len(self.running))
        waiting = [
            Demand(trial, self.trials[trial].epochs * self.single_s[trial], self.sizes)
            for trial in self.waiting[: -could_begin - 1 : -1]
        ]
        return assign([*demands, *waiting], self.cluster, self.speeds, self.restart_s)

    def _begin(self, places: Mapping[int, Place], now_s: float) -> set[int]:
        """Let the trials that wait begin whose devices are idle."""
        began = set()
        while self.waiting and (place := places.get(self.waiting[-1])) and self._is_idle(place):
            trial = self.waiting.pop()
            self._enter(trial, place, now_s, 0, self.pace.start_s(place))
            began.add(trial)
        return began

    def _move(self, trial: int, place: Place, now_s: float) -> bool:
        """Give a trial that has just ended an epoch its other devices; return whether it could have them."""
        state = self.running[trial]
        if place == state.place:
            return False
        self._count(state.place, -1)
        if not self._is_idle(place):
            self._count(state.place, 1)
            return False
        self._count(state.place, 1)
        self._leave(trial, now_s)
        self._enter(trial, place, now_s, round(state.done), self.pace.restart_s(place))
        return True

    def _enter(self, trial: int, place: Place, now_s: float, epochs: int, setup_s: float) -> None:
        self._count(place, 1)
        pace_s = self._epoch_s(trial, place)
        self.running[trial] = _Running(place, place, now_s, epochs, setup_s, float(epochs), now_s, pace_s)
        self._plan(trial)

    def _leave(self, trial: int, now_s: float) -> None:
        state = self.running.pop(trial)
        self._count(state.place, -1)
        self.stretches.append(Stretch(trial, state.place, state.begin_s, now_s, round(state.done) - state.first_epoch))

    def _aim(self, trial: int, place: Place) -> None:
        """Say which devices a trial is to have after its epoch."""
        state = self.running[trial]
        if place != state.target:
            state.target = place
            self._plan(trial)

    def _keep_pace(self, now_s: float) -> None:
        """Give every trial the pace that follows from how many devices read now."""
        for trial, state in self.running.items():
            seconds = self._epoch_s(trial, state.place)
            if seconds != state.epoch_s:
                state.advance(now_s)
                state.epoch_s = seconds
                self._plan(trial)

    def _epoch_s(self, trial: int, place: Place) -> float:
        return self.pace.epoch_s(self.trials[trial], place, load_of(place, self.busy, sum(self.busy)))

    def _plan(self, trial: int) -> None:
        """Plan a trial's next milestone."""
        state, milestone = self.running[trial], self.trials[trial].epochs
        begun = int(state.done + SAME_MOMENT_S)
        if self.stopping is not None:
            milestone = min(milestone, self.stopping.next_rung(begun))
        if state.target != state.place:
            milestone = min(milestone, begun + 1)
        state.milestone, state.version = milestone, state.version + 1
        left_s = state.setup_s + max(0.0, milestone - state.done) * state.epoch_s
        heapq.heappush(self.events, (state.at_s + left_s, trial, state.version))

    def _is_idle(self, place: Place) -> bool:
        return all(self.busy[node] + count <= self.nodes[node] for node, count in place.counts)

    def _count(self, place: Place, sign: int) -> None:
        for node, count in place.counts:
            self.busy[node] += sign * count
