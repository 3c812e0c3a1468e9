"""What the driver sees of a study: it goes to the study's store, to the tracker, and to the person who waits."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from ray import tune

from mis.track.base import TUNE, Run, Tracker
from mis.track.names import BEST_DICE, EPOCH_S, TOTAL_S, VAL_DICE
from mis.train.allocate import Share
from mis.train.batch_rule import in_force
from mis.train.checkpoint import is_finished
from mis.tune.console.progress import Row
from mis.tune.console.table import Board
from mis.tune.ray.worker import ATTEMPT, EPOCH, NUMBER, TRIAL, VALUES, WORKED_S, reports
from mis.tune.study.store import BUDGET, Asked, StudyStore, Trial, Values, trial_name

STUDY_TAG = "mis.study"
TRIAL_TAG = "mis.trial"
STATE_TAG = "mis.state"
ERROR_TAG = "mis.error"

TRIAL_S = "time/trial_s"
"""The metric of the seconds from a trial's start to its end."""

NOW = "now/"
"""Prefix of the metrics that tell of a population's values, which change from epoch to epoch."""

DIED = "worker process has died"
"""In what Ray says when a process has gone."""

OUT_OF_MEMORY = "low on memory"
"""In what Ray says when it has ended a process because the node's memory was full."""


@dataclass
class _Seen:
    """What the driver knows of a trial that it has seen start.

    Attributes:
        asked: What was suggested.
        run: Its run.
        started: When it was seen first, in seconds since 1970.
        before_s: Seconds of its epochs in earlier sessions.
        values: What it has by now.
        logged: The last epoch that its run has.
        worked_s: Seconds that each of its starts has worked: it may be paused between them.
        over: Whether it has ended.
    """

    asked: Asked
    run: Run
    started: float
    before_s: float
    values: Values
    logged: int = 0
    worked_s: dict[str, float] = field(default_factory=dict)
    over: bool = False

    @property
    def elapsed_s(self) -> float:
        """Seconds that it has been worked on; where it has told of none, since it was seen first."""
        return self.before_s + (sum(self.worked_s.values()) or time.time() - self.started)


class Stopper(tune.Stopper):  # type: ignore[misc]  # Ray's classes are Any here
    """Ends the study when its budget is spent."""

    def __init__(self, spent: Callable[[], bool]) -> None:
        self.spent = spent

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether this trial has to end: only with all others."""
        return False

    def stop_all(self) -> bool:
        """Return whether all have to end."""
        return self.spent()


class Watcher(tune.Callback):  # type: ignore[misc]
    """Keeps the store, the tracker and the board up to date with what Ray Tune reports."""

    def __init__(
        self, store: StudyStore, share: Share, tracker: Tracker, study: Run, describe: Callable[[Run], None]
    ) -> None:
        self.store = store
        self.share = share
        self.tracker = tracker
        self.study = study
        self.describe = describe
        self.seen: dict[str, _Seen] = {}
        self.unended: set[int] = set()
        self.all_begun = False
        self.begun_at = time.monotonic() - store.seconds
        done = store.trials()
        self.best = max((trial.best[VAL_DICE] for trial in done if trial.history), default=float("-inf"))
        own = store.tune
        self.board = Board(
            store.name,
            total=store.total,
            concurrent=share.concurrent,
            epochs=own.epochs,
            earlier=[_row(trial) for trial in done],
            hours_left=None if own.hours is None else own.hours - store.seconds / 3600,
        )
        self.stopper = Stopper(lambda: self.budget_is_spent)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its callbacks with its own state."""
        return {}

    # ---- When it ends ----

    @property
    def spent(self) -> str:
        """What of the budget is spent, as it is called in params.yaml; nothing if nothing is."""
        own = self.store.tune
        if own.target_dice is not None and self.best >= own.target_dice:
            return "target_dice"
        late = own.hours is not None and time.monotonic() - self.begun_at > 3600 * own.hours
        return "hours" if late else ""

    @property
    def budget_is_spent(self) -> bool:
        """Whether the time is up or the Dice that was asked for is reached."""
        return bool(self.spent)

    @property
    def complete(self) -> bool:
        """Whether the study has come to an end of its own."""
        return self.budget_is_spent or (self.all_begun and not self.unended)

    # ---- What Ray Tune reports ----

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Start the trial's run, or go on with it."""
        self._see(trial)

    def _see(self, trial: Any) -> _Seen:
        """Return what is known of a trial; its process may have died before Ray Tune has called it started."""
        if trial.trial_id in self.seen:
            return self.seen[trial.trial_id]
        told = trial.config[TRIAL]
        asked = Asked(told[NUMBER], told[VALUES])
        history = self.store.checkpoints(asked.number).history()
        before_s = history[-1][TOTAL_S] if history else 0.0
        seen = _Seen(asked, self._run(asked), time.time(), before_s, asked.values)
        self.seen[trial.trial_id] = seen
        self.board.begin(asked.name, asked.values)
        return seen

    def _run(self, asked: Asked) -> Run:
        key = {STUDY_TAG: self.store.name, TRIAL_TAG: asked.name}
        params = self.store.params
        # Not checked here: values that do not go together are found by the trial, and fail it alone.
        own = {**params.flatten(), **asked.values, "train.epochs": params.tune.epochs}
        own = {name: value for name, value in own.items() if name not in BUDGET}  # it is the study's, and may change
        train = {name.removeprefix("train."): value for name, value in own.items() if name.startswith("train.")}
        rule = in_force(params.train.model_copy(update=train), params.distribute, self.share.devices)
        run = self.tracker.find_run(TUNE, key) or self.tracker.start_run(
            TUNE, f"trial-{asked.name}", tags=key, parent=self.study.id
        )
        run.log_params({**own, **rule})  # also where it was there: the process that began it may not have come so far
        self.describe(run)
        return run

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        """Log an epoch; one that was logged before is dropped by the run."""
        seen = self._see(trial)
        self._note_values(seen)
        with self._later_if_it_fails():
            self._log_untold(seen, result[EPOCH])
            seen.run.log_metrics({**_metrics(result), **self._now(seen)}, step=result[EPOCH])
            seen.logged = max(seen.logged, result[EPOCH])
        self._note_time()
        if ATTEMPT in result:
            seen.worked_s[result[ATTEMPT]] = result[WORKED_S]
        self.best = max(self.best, result[BEST_DICE])
        self.board.report(seen.asked.name, result[EPOCH], result[VAL_DICE], result[BEST_DICE], result[EPOCH_S])

    def _log_untold(self, seen: _Seen, epoch: int) -> None:
        """Log the epochs before one that are in the checkpoint, and of which a process that died has not told."""
        if epoch > seen.logged + 1:
            history = self.store.checkpoints(seen.asked.number).history()
            for report in reports(history)[seen.logged : epoch - 1]:
                seen.run.log_metrics(_metrics(report), step=int(report[EPOCH]))

    def _now(self, seen: _Seen) -> dict[str, float]:
        """Return what changes from epoch to epoch in a population: values, and whose weights a trial goes on from."""
        if not self.store.is_population:
            return {}
        donor = self.store.donor(seen.asked.number)
        values = {f"{NOW}{name}": value for name, value in seen.values.items() if isinstance(value, float)}
        return values if donor is None else {**values, f"{NOW}cloned_from": float(donor)}

    def _note_values(self, seen: _Seen) -> None:
        """Record values that have changed since the trial was begun: another batch, another trial's weights."""
        values = self.store.values(seen.asked.number, seen.asked.values)
        if values != seen.values:
            changed = {name: value for name, value in values.items() if seen.values.get(name) != value}
            seen.values = values
            with self._later_if_it_fails():
                seen.run.log_params(changed)
            self.board.begin(seen.asked.name, values)
            donor = self.store.donor(seen.asked.number)
            whose = "" if donor is None else f" from the weights of trial {trial_name(donor)}"
            told = ", ".join(f"{name} {value}" for name, value in changed.items())
            self.board.say(f"trial {seen.asked.name} goes on{whose} with {told}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Say that a trial begins again, and with half the batch if the memory was full."""
        seen, reason = self._see(trial), _reason(trial)
        number, again = seen.asked.number, "goes on from its last epoch"
        if OUT_OF_MEMORY in reason and self.store.halve_batch(number, seen.asked.values, self.share.devices):
            again = "goes on with half the batch"
        self.board.say(f"trial {seen.asked.name} {again}: {reason}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Write what became of it."""
        seen = self.seen.get(trial.trial_id)
        if seen is not None and not seen.over:
            self._end(seen, self._outcome(seen))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Write that the trial failed; Ray calls this once its restarts are used up."""
        seen = self._see(trial)
        self._end(seen, replace(self._outcome(seen), state="failed", error=_reason(trial)))

    # ---- What is written ----

    def _end(self, seen: _Seen, outcome: Trial) -> None:
        self._note_values(seen)
        self.store.end(seen.asked.number, outcome)
        seen.over = True
        self.unended.discard(seen.asked.number)
        self._note_time()
        if not self.store.is_population:  # there others may go on from its weights
            self.store.keep(self.store.tune.keep)
        with self._later_if_it_fails():
            self._record(seen.run, outcome)
        if outcome.history:
            last, best = outcome.history[-1], outcome.best[VAL_DICE]
            self.board.report(outcome.name, len(outcome.history), last[VAL_DICE], best, last[EPOCH_S])
        self.board.end(outcome.name, outcome.state, outcome.best.get(VAL_DICE), outcome.elapsed_s, outcome.error)

    @contextmanager
    def _later_if_it_fails(self) -> Iterator[None]:
        """Go on when the tracker fails: an error here would be the trial's for Ray Tune, which would run it again.

        What an outcome has is recorded by `record_the_rest`, which raises if the tracker still fails.
        """
        try:
            yield
        except Exception as error:
            self.board.say(f"the tracker fails, and is told at the end: {str(error).strip().splitlines()[-1:]}")

    def _record(self, run: Run, outcome: Trial) -> None:
        for report in reports(outcome.history):  # a process that ended may not have told of its last one
            run.log_metrics(_metrics(report), step=int(report[EPOCH]))
        run.set_tags({STATE_TAG: outcome.state, **({ERROR_TAG: outcome.error} if outcome.error else {})})
        run.log_metrics({TRIAL_S: outcome.elapsed_s})
        run.finish("FAILED" if outcome.state == "failed" else "FINISHED")
        self.store.set_recorded(int(outcome.name))

    def record_the_rest(self) -> None:
        """Record what became of trials where that has not been done: a process was killed, or the tracker failed."""
        for outcome in self.store.trials():
            number = int(outcome.name)
            if not self.store.is_recorded(number):
                self._record(self._run(Asked(number, outcome.values)), outcome)

    def _note_time(self) -> None:
        self.store.set_seconds(time.monotonic() - self.begun_at)

    def abandon(self) -> None:
        """Record that trials that still ran, if any, were ended with the study."""
        self._note_time()
        if self.spent:
            self.board.say(f"tune.{self.spent} is reached: the study ends, and trials that still run with it")
            self.study.set_tags({"mis.ended_by": f"tune.{self.spent}"})
        for seen in self.seen.values():
            if not seen.over:
                if self.budget_is_spent:
                    self._end(seen, self._outcome(seen))
                else:
                    seen.run.set_tags({STATE_TAG: "killed"})
                    seen.run.finish("KILLED")

    def _outcome(self, seen: _Seen) -> Trial:
        history = self.store.checkpoints(seen.asked.number).history()
        patience = seen.asked.values.get("train.patience", self.store.params.train.patience)
        if history and not isfinite(history[-1]["train/loss"]):
            state = "diverged"
        elif is_finished(history, epochs=self.store.tune.epochs, patience=int(patience)):
            state = "completed"
        else:
            state = "stopped"
        return Trial(
            name=seen.asked.name,
            values=dict(self.store.values(seen.asked.number, seen.asked.values)),
            state=state,
            history=history,
            elapsed_s=seen.elapsed_s,
        )


def _row(trial: Trial) -> Row:
    """Return a trial of an earlier process as the board shows it."""
    last = trial.history[-1][VAL_DICE] if trial.history else None
    best = trial.best.get(VAL_DICE)
    return Row(trial.name, trial.values, trial.state, len(trial.history), last, best, trial.elapsed_s)


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in report.items() if "/" in name and isinstance(value, float)}


def _reason(trial: Any) -> str:
    """Return the line of a trial's newest error that says what happened.

    It is read from the driver's own file: what `Trial.get_error` reads is written later.
    """
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8", errors="replace").strip() if path else ""
    lines = text.rpartition("Failure # ")[2].splitlines()[1:] or ["its process died"]
    # The last line is the exception itself; what Ray says of a full memory begins with what happened.
    told = next((line for line in lines if OUT_OF_MEMORY in line), lines[-1])
    if DIED in text.rpartition("Failure # ")[2] and OUT_OF_MEMORY not in told:
        return "its process died"  # Ray tells of a dozen reasons that there may be
    return told.strip()[:500]
