"""A list of trials on some devices: who begins when and where, with real trainings.

Every mode is the same code. `mis.tune.allocation` says which devices a trial has; where it may have one number of them
alone it is run on so many or waits, and where it may have several it is elastic.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from mis.errors import WorkerError
from mis.params.load import Params
from mis.scaling.cells import TimedTrial
from mis.scaling.crew import Crew, Pool, network_of
from mis.scaling.timeline import Stretch
from mis.track.names import COMMUNICATION_SHARE, DEVICES, EPOCH_S, INPUT_SHARE, SAMPLES_PER_S, TOTAL_S, VAL_DICE
from mis.train.checkpoint import Checkpoints, History, is_finished
from mis.train.heartbeat import WorkerLostError
from mis.tune.allocation import Cluster, Place
from mis.tune.elastic import UNMEASURED, ElasticAllocation, Experience
from mis.tune.trial import trial_name

JOIN_S = 10.0
"""Seconds to wait for a thread whose processes were dismissed."""


@dataclass(frozen=True)
class ListedTrial:
    """A trial of the list.

    Attributes:
        params: All parameters, with its values.
        sizes: The numbers of devices that it may have, rising.
    """

    params: Params
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class RunList:
    """A list of trials that was run.

    Attributes:
        trials: The trials, in the order of the list.
        stretches: Which of them had which devices when.
        restarts: How often a trial was given other devices.
        lost: How often a process was lost, which costs its trial the epoch that it was in.
    """

    trials: tuple[TimedTrial, ...]
    stretches: tuple[Stretch, ...]
    restarts: int
    lost: int


@dataclass(frozen=True)
class _Epoch:
    """What a trial's thread reports: an epoch has ended; the trial waits for an answer."""

    trial: int
    at_s: float


@dataclass(frozen=True)
class _End:
    """What a trial's thread reports: it has given its devices back."""

    trial: int
    at_s: float
    error: BaseException | None


@dataclass
class _Running:
    """A trial that has devices.

    Attributes:
        crew: Its processes.
        begin_s: When it got them.
        first_epoch: How many epochs it had by then.
        start: A name of this start of the trial.
        answers: Where its thread waits whether it goes on.
        moves_to: The devices that it is stopped for, to go on with them.
    """

    crew: Crew
    begin_s: float
    first_epoch: int
    start: str
    answers: "SimpleQueue[bool]" = field(default_factory=SimpleQueue)
    moves_to: Place | None = None


class Schedule:
    """Runs a list of trials.

    Attributes:
        trials: The list.
        pool: The processes.
        folder: Where the trials' checkpoints are; all nodes share it.
        cases: Training cases of an epoch.
        target: The validation Dice whose time is asked for, if any.
        on_epoch: Called after each epoch.
        allocation: Who has which devices.
    """

    def __init__(
        self,
        trials: Sequence[ListedTrial],
        cluster: Cluster,
        pool: Pool,
        folder: Path,
        *,
        cases: int,
        restart_s: float,
        target: float | None = None,
        on_epoch: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare to run a list.

        Args:
            trials: The list.
            cluster: The devices of each node.
            pool: The processes.
            folder: For the trials' checkpoints.
            cases: Training cases of an epoch.
            restart_s: Seconds that a restart on other devices is taken to cost before one was measured.
            target: See above.
            on_epoch: See above.
        """
        self.trials = trials
        self.pool = pool
        self.folder = folder
        self.cases = cases
        self.target = target
        self.on_epoch = on_epoch
        self.devices = sum(cluster.nodes)
        self.allocation = ElasticAllocation(
            cluster,
            trials[0].params.train.epochs,
            trials=len(trials),
            smallest=min(trial.sizes[0] for trial in trials),
            experience=Experience(restart_s, UNMEASURED),
        )
        self._networks = len({network_of(trial.params) for trial in trials})
        self._waiting = list(range(len(trials)))[::-1]
        self._ready: dict[int, Place] = {}
        self._running: dict[int, _Running] = {}
        self._events: SimpleQueue[_Epoch | _End] = SimpleQueue()
        self._histories: dict[int, History] = {}
        self._begun_s: dict[int, float] = {}
        self._reached_s: dict[int, float] = {}
        self._first_epochs: dict[int, set[int]] = {}
        self._lost: dict[int, int] = {}
        self._stretches: list[Stretch] = []
        self._ended: dict[int, TimedTrial] = {}
        self._starts = self._restarts = 0
        self._threads: list[Thread] = []

    def run(self) -> RunList:
        """Run all trials, and return when each had which devices; the clock starts now.

        Raises:
            MisError: The parameters of a trial are of no use.
            WorkerError: A training failed, or lost its processes too often.
        """
        self._began = time.perf_counter()
        self._go_on()
        while self._running:
            event = self._events.get()
            if isinstance(event, _Epoch):
                self._answer(event)
            else:
                self._end(event)
            self._go_on()
        trials = tuple(self._ended[number] for number in range(len(self.trials)))
        return RunList(trials, tuple(self._stretches), self._restarts, sum(self._lost.values()))

    def _now_s(self) -> float:
        return time.perf_counter() - self._began

    def _go_on(self) -> None:
        """Begin the next trials as long as devices are idle, and start those whose devices have become free."""
        while self._waiting:
            number = self._waiting[-1]
            sizes = self.trials[number].sizes
            places = [*self._ready.values(), *(running.crew.place for running in self._running.values())]
            if sum(place.devices for place in places) + sizes[0] > self.devices:
                break
            place = self.allocation.begin(number, sizes)
            if place is None:  # the idle devices are on nodes that have too few of them
                self.allocation.end(number)
                break
            self._ready[self._waiting.pop()] = place
        for number, place in list(self._ready.items()):
            if (crew := self.pool.hire(place)) is not None:
                del self._ready[number]
                self._start(number, crew)

    def _start(self, number: int, crew: Crew) -> None:
        self._starts += 1
        first_epoch = len(self._histories.get(number, ()))
        self._first_epochs.setdefault(number, set()).add(first_epoch)
        running = _Running(crew, self._now_s(), first_epoch, f"start {self._starts}")
        self._begun_s.setdefault(number, running.begin_s)
        self._running[number] = running
        thread = Thread(target=self._train, args=(number, running), daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait until no thread trains any more; their processes were dismissed before."""
        for running in self._running.values():
            running.answers.put(False)
        for thread in self._threads:
            thread.join(JOIN_S)

    def _train(self, number: int, running: _Running) -> None:
        """Train in a thread: whatever happens is an event for the schedule."""

        def on_epoch(history: History) -> bool:
            self._histories[number] = history
            self._events.put(_Epoch(number, self._now_s()))
            return running.answers.get()

        error: BaseException | None = None
        try:
            running.crew.train(self.trials[number].params, self._checkpoints(number), on_epoch, self._networks)
        except BaseException as raised:
            error = raised
        self._events.put(_End(number, self._now_s(), error))

    def _checkpoints(self, number: int) -> Checkpoints:
        return Checkpoints(self.folder / f"trial-{trial_name(number)}")

    def _answer(self, event: _Epoch) -> None:
        """Say whether a trial goes on after its epoch, or gets other devices."""
        number, trial = event.trial, self.trials[event.trial]
        running, history = self._running[number], self._histories[number]
        last, limits = history[-1], trial.params.train
        if self.target is not None and last[VAL_DICE] >= self.target:
            self._reached_s.setdefault(number, event.at_s)
        self.allocation.epoch_ended(number, len(history), last[EPOCH_S], running.start, trial.sizes)
        if not is_finished(history, epochs=limits.epochs, patience=limits.patience):
            planned = self.allocation.goes_on_with(number)
            if planned != running.crew.place:
                running.moves_to = self.allocation.restart(number)
                self._restarts += 1
        running.answers.put(running.moves_to is None)
        self.on_epoch()

    def _end(self, event: _End) -> None:
        """Take a trial's devices back."""
        number, running = event.trial, self._running.pop(event.trial)
        # A process may have died after it had written a checkpoint and before it had reported it.
        self._histories[number] = self._checkpoints(number).history() or self._histories.get(number, [])
        epochs = len(self._histories[number]) - running.first_epoch
        self._stretches.append(Stretch(number, running.crew.place, running.begin_s, event.at_s, epochs))
        if event.error is None:
            self.pool.release(running.crew)
            if running.moves_to is not None:
                self._ready[number] = running.moves_to
            else:
                self.allocation.end(number)
                self._ended[number] = self._timed(number, event.at_s)
            return
        if not isinstance(event.error, WorkerLostError):
            raise event.error
        self.pool.dismiss(running.crew)
        self._lost[number] = self._lost.get(number, 0) + 1
        allowed = self.trials[number].params.distribute.max_restarts
        if self._lost[number] > allowed:
            raise WorkerError(
                f"trial {trial_name(number)}: {event.error}; it was started again {allowed} times, which is all that "
                "distribute.max_restarts allows; the same command goes on with the cells that are missing"
            ) from None
        self.pool.say(f"trial {trial_name(number)}: {event.error}; it goes on from its last epoch")
        self._ready[number] = running.moves_to or running.crew.place

    def _timed(self, number: int, end_s: float) -> TimedTrial:
        history = self._histories[number]
        firsts = self._first_epochs[number]
        later = [epoch for index, epoch in enumerate(history) if index not in firsts]
        last: Mapping[str, float] = later[-1] if later else history[-1]
        return TimedTrial(
            trial=number,
            begin_s=self._begun_s[number],
            end_s=end_s,
            epochs=len(history),
            dice=max(epoch[VAL_DICE] for epoch in history),
            reached_s=self._reached_s.get(number),
            devices=round(last[DEVICES]),
            epoch_s=last[EPOCH_S],
            training_s=self.cases / last[SAMPLES_PER_S],
            input_share=last[INPUT_SHARE],
            communication_share=last[COMMUNICATION_SHARE],
            beside_s=end_s - self._begun_s[number] - history[-1][TOTAL_S],
        )
