"""What happens in a study while it runs: it goes to the store, to the tracker, to the console, and to the budget."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from mis.track.base import Run, Tracker
from mis.track.names import BEST_DICE, CLONED_FROM, ENDED_BY_TAG, NOW_PREFIX, TOTAL_S, TRAIN_LOSS
from mis.train.allocate import Share
from mis.train.checkpoint import History, is_finished
from mis.tune.console.table import StudyConsole
from mis.tune.epochs import EPOCH, metrics_of, reports
from mis.tune.study import messages
from mis.tune.study.bad_nodes import BadNodes
from mis.tune.study.budget import Budget
from mis.tune.study.recorder import Recorder
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial, TrialState, Values, Verdict, ranked, trial_name

MOST_BEGINNINGS = 10
"""How often a trial begins again elsewhere before an epoch: each time a node was left out, or the process of an earlier
trial was dead. A few suffice; more say that something else is wrong, and the trial fails."""

NOTE_S = 1.0
"""Seconds between two notes of how long a study has run: a kill costs its budget no more."""


@dataclass
class RunningTrial:
    """A trial that this process has seen start.

    Attributes:
        trial: The trial as it is now.
        suggested: The values that it was begun with.
        begun_at: When it was seen first, in seconds since 1970.
        earlier_s: Seconds of its epochs in earlier sessions.
        worked_s: Seconds that each of its starts has worked on it: it may be paused between them.
        had_epoch: Whether its last start has come to an epoch.
        reported: The metrics of its epochs, where its checkpoints may lack some of them.
    """

    trial: Trial
    suggested: Values
    begun_at: float
    earlier_s: float
    worked_s: dict[str, float] = field(default_factory=dict)
    had_epoch: bool = False
    reported: History = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """Seconds that were worked on the trial; where none are reported yet, those since it was seen first."""
        return self.earlier_s + (sum(self.worked_s.values()) or time.time() - self.begun_at)


class StudyMonitor:
    """Keeps the store, the tracker, the console and the budget up to date with what becomes of the trials.

    Attributes:
        store: The study.
        budget: When it ends.
        console: What the user sees.
        recorder: The runs of its trials.
        replicas: Returns over how many devices a trial is spread, by its number.
        can_run: Returns whether a trial can be run on the nodes that are there and not left out.
        bad_nodes: The nodes that are left out.
        again: The trials that begin again elsewhere, because their node was left out.
    """

    def __init__(
        self,
        store: StudyStore,
        share: Share,
        tracker: Tracker,
        parent: Run,
        describe: Callable[[Run], None] = lambda run: None,  # noqa: ARG005
    ) -> None:
        ended = store.trials()
        best = ranked(ended)
        self.store = store
        self.share = share
        self.replicas: Callable[[int], int] = lambda number: share.replicas  # noqa: ARG005
        self.can_run: Callable[[], bool] = lambda: True
        self.bad_nodes = BadNodes()
        self.again: list[int] = []
        self.budget = Budget(store.tune, earlier_s=store.seconds)
        if best:
            self.budget.note_dice(best[0].score)
        self.console = StudyConsole(
            store.name,
            total=store.total,
            concurrent=share.concurrent,
            epochs=store.tune.epochs,
            ended=[trial.without_history() for trial in ended],
            hours_left=self.budget.hours_left,
        )
        self.recorder = Recorder(store, share, tracker, parent, describe)
        self._running: dict[int, RunningTrial] = {}
        self._begun_again: Counter[int] = Counter()
        self._said: set[Path] = set()
        self._noted_s = float("-inf")
        self._kept = [trial.without_history() for trial in best if trial.best_model is not None]

    def end_decided(self) -> None:
        """End the trials of which an earlier session has decided, or trained, all that there was, and noted no end."""
        for trial in self.store.interrupted():
            history = self.store.checkpoints(trial.number).history()
            if not history:
                continue
            verdict = self.store.judge(trial.number, reports(history)[-1])
            if verdict is Verdict.STOP or self._state(history, trial.values) is not TrialState.STOPPED:
                self.begin(trial)
                self.ended(trial.number)

    def begin(self, trial: Trial) -> None:
        """Note that a trial has started; once, however often it is called."""
        if trial.number in self._running or self.store.folder.trial(trial.number).outcome.exists():
            return
        history = self.store.checkpoints(trial.number).history()
        earlier_s = history[-1][TOTAL_S] if history else 0.0
        known = trial.with_history(history).without_history()
        self._running[trial.number] = RunningTrial(known, trial.values, time.time(), earlier_s, reported=history)
        self.recorder.begin(known)
        self.console.show(known)

    def epoch_ended(
        self, number: int, report: Mapping[str, Any], attempt: str = "", worked_s: float = 0.0, node: str = ""
    ) -> None:
        """Note an epoch of a trial; one that was reported before changes nothing.

        Args:
            number: The trial's number.
            report: What its worker tells, see `mis.tune.epochs.reports`.
            attempt: Which start of the trial tells it; empty where that is not known.
            worked_s: Seconds that this start has worked on the trial.
            node: The name of the node that it is on.
        """
        running = self._running[number]
        self._note_values(running)
        running.trial = running.trial.after(int(report[EPOCH]), metrics_of(report))
        if attempt:
            if attempt not in running.worked_s:
                self._say_unreadable(number, one_was_left=int(report[EPOCH]) > 1)
            running.worked_s[attempt] = worked_s
        running.had_epoch = True
        if int(report[EPOCH]) == len(running.reported) + 1:
            running.reported.append(metrics_of(report))
        self._begun_again.pop(number, None)
        self.bad_nodes.had_epoch(node)
        self.recorder.log_epoch(running.trial, report, self._population_metrics(running.trial))
        self.budget.note_dice(report[BEST_DICE])
        self.console.show(running.trial)
        self._note_time()

    def restarted(self, number: int, reason: str, *, out_of_memory: bool) -> None:
        """Say that a trial starts again, and with half the batch if the memory was full."""
        running = self._running[number]
        running.had_epoch = False
        again = "goes on from its last epoch" if self.store.checkpoints(number).newest() else "is tried again"
        if out_of_memory and self.store.halve_batch(number, running.suggested, self.replicas(number)):
            again = "goes on with half the batch"
        self.console.say(f"trial {trial_name(number)} {again}: {reason}")

    def start_failed(self, number: int, reason: str, node: str, host: str) -> bool:
        """Note that a start of a trial has failed; a node on which none comes to an epoch is left out.

        Args:
            number: The trial's number.
            reason: What its error says.
            node: The name of the node that it was on.
            host: The node's name for people.

        Returns:
            Whether it was the node's fault: then the trial begins again elsewhere, and those do that have failed there
            before.
        """
        running = self._running.get(number)
        if running is None or running.had_epoch:
            return False
        if self.bad_nodes.failed(node, reason, number):
            self.console.say(messages.node_left_out(host, reason))
            for other in self.store.try_again(self.bad_nodes.failed_on(node) - self._running.keys()):
                self.budget.begin(other)
                self.again.append(other)
            if not self.can_run():
                self.budget.give_up(messages.no_node_left(host, reason, self.store.way_on))
        return node in self.bad_nodes.left_out

    def begins_again(self, number: int) -> bool:
        """Let a trial begin again elsewhere; return whether it may, which it may not without end."""
        self._begun_again[number] += 1
        if self._begun_again[number] > MOST_BEGINNINGS:
            return False
        running = self._running.pop(number)
        self.recorder.leave(running.trial)
        self.recorder.forget(number)
        self.again.append(number)
        return True

    def ended(self, number: int, error: str | None = None) -> None:
        """Note that a trial has ended; once, however often it is called.

        Args:
            number: The trial's number.
            error: Why it failed; None if it has not.
        """
        if self.budget.given_up is not None:
            return
        running = self._running.get(number)
        if running is None:
            return
        self._note_values(running)
        trial = self._outcome(running, error)
        self.store.end(trial)
        del self._running[number]
        self.budget.end(number)
        self._note_time()
        self.recorder.end(trial)
        self.console.show(trial.without_history())
        if not self.store.is_population:  # there others may go on from its weights
            self._keep_best(trial.without_history())

    def leave(self) -> None:
        """Note that the study is left: trials that still run have ended with its budget, or are interrupted."""
        with self.budget.giving_up():
            self.store.set_seconds(self.budget.elapsed_s)
        if self.budget.is_reached:
            limit = f"tune.{self.budget.reached}"
            self.console.say(f"{limit} is reached: the study ends, and trials that still run with it")
        for number, running in list(self._running.items()):
            with self.budget.giving_up():
                if self.budget.is_reached and self.budget.given_up is None:
                    self.ended(number)
                else:
                    self.recorder.leave(running.trial)
        if self.budget.is_over:
            self.recorder.tag_study({ENDED_BY_TAG: f"tune.{self.budget.reached or 'num_samples'}"})

    def _outcome(self, running: RunningTrial, error: str | None) -> Trial:
        """Return a trial as it has ended, with the history of its newest checkpoint."""
        number, epochs = running.trial.number, running.trial.epochs
        checkpoints = self.store.checkpoints(number)
        if checkpoints.may_lack_epochs:
            history = max(checkpoints.history(), running.reported, key=len)
        else:
            history = checkpoints.history(at_least=epochs)
            if not checkpoints.has_seen(epochs):
                raise messages.checkpoints_not_seen(number, self.store.folder.trial(number).path, epochs, len(history))
        return replace(
            running.trial.with_history(history),
            values=dict(self.store.values(number, running.suggested)),
            state=TrialState.FAILED if error is not None else self._state(history, running.suggested),
            elapsed_s=running.elapsed_s,
            error=error or "",
        )

    def _state(self, history: History, values: Values) -> TrialState:
        patience = int(values.get("train.patience", self.store.params.train.patience))
        if history and not isfinite(history[-1][TRAIN_LOSS]):
            return TrialState.DIVERGED
        if is_finished(history, epochs=self.store.tune.epochs, patience=patience):
            return TrialState.COMPLETED
        return TrialState.STOPPED

    def _keep_best(self, trial: Trial) -> None:
        """Delete the model that is no longer among the best, be it this trial's or one that was kept before."""
        models = ranked([*self._kept, trial])
        self._kept = models[: self.store.tune.keep]
        for other in models[self.store.tune.keep :]:
            self.store.delete_model(other.number)

    def _note_values(self, running: RunningTrial) -> None:
        """Record values that have changed since the trial was begun: another batch, another trial's weights."""
        trial = running.trial
        self.store.fetch(trial.number)
        values = self.store.values(trial.number, running.suggested)
        if values == trial.values:
            return
        changed = {name: value for name, value in values.items() if trial.values.get(name) != value}
        running.trial = replace(trial, values=values)
        self.recorder.log_values(running.trial, changed)
        self.console.show(running.trial)
        donor = self.store.donor(trial.number)
        whose = "" if donor is None else f" from the weights of trial {trial_name(donor)}"
        shown = ", ".join(f"{name} {value}" for name, value in changed.items())
        self.console.say(f"trial {trial.name} goes on{whose} with {shown}")

    def _population_metrics(self, trial: Trial) -> dict[str, float]:
        """Return what changes from epoch to epoch in a population: values, and whose weights a trial goes on from."""
        if not self.store.is_population:
            return {}
        donor = self.store.donor(trial.number)
        values = {f"{NOW_PREFIX}{name}": value for name, value in trial.values.items() if isinstance(value, float)}
        return values if donor is None else {**values, CLONED_FROM: float(donor)}

    def _say_unreadable(self, number: int, *, one_was_left: bool) -> None:
        """Say which checkpoints a trial that was started again could not read."""
        for path in self.store.checkpoints(number).aside():
            if path not in self._said:
                self._said.add(path)
                self.console.say(messages.unreadable_checkpoint(number, path, one_was_left=one_was_left))

    def _note_time(self) -> None:
        """Write how long the study has run, not more often than each second."""
        if self.budget.elapsed_s - self._noted_s >= NOTE_S:
            self._noted_s = self.budget.elapsed_s
            self.store.set_seconds(self._noted_s)
