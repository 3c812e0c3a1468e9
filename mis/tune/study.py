"""A study on Ray Tune: many trials at once, each on its share of the devices.

The driver, which is this process, is the only one that writes to the tracker and to the study's
store. Ray schedules; it keeps nothing: checkpoints and what was reported are in the store.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from tqdm import tqdm

from mis.params import TuneParams
from mis.track.base import TUNE, Run, Tracker
from mis.track.names import BEST_SCORE, SELECTION
from mis.train.allocate import Share
from mis.train.batch_rule import in_force
from mis.train.checkpoint import History, is_finished
from mis.tune.search import number_of_trials
from mis.tune.store import Asked, StudyStore, Trial

STUDY_TAG = "mis.study"
TRIAL_TAG = "mis.trial"

SESSION = "session"
EPOCH = "epoch"
NUMBER = "mis.number"
"""The key of a trial's number among the values that Ray hands to it."""


def run_study(
    store: StudyStore,
    share: Share,
    *,
    records: Path,
    tracker: Tracker,
    study: Run,
    describe: Callable[[Run], None] | None = None,
) -> list[Trial]:
    """Run a study to its end, from wherever it is.

    Args:
        store: The study; every node must see its folder.
        share: What each trial has.
        records: The folder of records, as every node sees it.
        tracker: Where each trial becomes a run below `study`.
        study: The study's run.
        describe: Records where a trial's run comes from.
    """
    own = store.tune
    store.catch_up()
    watcher = _Watcher(store, share, tracker, study, describe or _nothing)
    watcher.record_the_rest()
    search: Searcher = _Asks(store, watcher)
    if own.scheduler.name != "hyperband":  # it lets trials wait for each other, so that more are begun than can run
        # As many as can run: a suggestion made earlier would know less.
        search = ConcurrencyLimiter(search, max_concurrent=share.concurrent)
    with TemporaryDirectory(prefix="mis-study-") as ray_state, watcher.bar:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    _train_one,
                    store=StudyStore(store.folder, store.params),
                    share=share,
                    records=records,
                    session=f"{time.time_ns():x}",
                ),
                tune.PlacementGroupFactory([share.bundle]),
            ),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=_scheduler(own),
                num_samples=-1,
                reuse_actors=True,  # 9 s for the first trial of a process, 1 s for each later one
            ),
            run_config=tune.RunConfig(
                name=store.name,
                storage_path=ray_state,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=own.max_failures),
                stop=watcher.stopper,
                verbose=0,
            ),
        )
        try:
            tuner.fit()
            if not watcher.complete:
                # On Ctrl-C Ray Tune stops the trials and returns as if the study were complete.
                raise KeyboardInterrupt
        finally:
            watcher.abandon()
        watcher.note_errors()
    store.keep(own.keep)
    return store.trials()


def _nothing(run: Run) -> None:
    """Record nothing more with a run."""


def _scheduler(params: TuneParams) -> TrialScheduler | None:
    own, epochs = params.scheduler, params.epochs
    compared = {"time_attr": EPOCH, "metric": BEST_SCORE, "mode": "max"}
    grace = min(own.grace_epochs, epochs)
    if own.name == "asha":
        return ASHAScheduler(**compared, max_t=epochs, grace_period=grace, reduction_factor=own.reduction_factor)
    if own.name == "median":
        return MedianStoppingRule(**compared, grace_period=grace)
    if own.name == "hyperband":
        return HyperBandScheduler(**compared, max_t=epochs, reduction_factor=own.reduction_factor)
    return None


def _train_one(config: dict[str, Any], *, store: StudyStore, share: Share, records: Path, session: str) -> None:
    """Run in a worker: one trial, its epochs reported to Ray Tune.

    In another session of the study than before, what it has reported then is reported again: the
    scheduler that compares trials is a new one.
    """
    values, number = dict(config), config[NUMBER]
    del values[NUMBER]
    checkpoints = store.checkpoints(number)
    marker = checkpoints.folder / SESSION
    if not marker.exists() or marker.read_text(encoding="utf-8") != session:
        for epoch in _reports(checkpoints.history()):
            tune.report(epoch)
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(session, encoding="utf-8")
    own = store.params.for_trial(values, store.tune.epochs)
    own.check_spread("tune.devices_per_trial", share.devices)

    from mis.quiet import import_tensorflow

    import_tensorflow()
    from mis.tune.trial import run_trial

    def report(history: History) -> None:
        tune.report(_reports(history)[-1])

    run_trial(own, share, records, checkpoints, report)


def _reports(history: History) -> list[dict[str, float]]:
    """Return what is reported of each epoch: its metrics, its number, and the best score so far.

    The best so far never falls: a scheduler that compares trials by it does not stop one for a
    single bad epoch, and a stopped trial counts with what it reached.

    >>> [report["best/dice"] for report in _reports([{"val/dice": 0.2}, {"val/dice": 0.1}])]
    [0.2, 0.2]
    """
    best, reports = 0.0, []
    for number, epoch in enumerate(history, start=1):
        best = max(best, epoch[SELECTION])
        reports.append({**epoch, EPOCH: number, BEST_SCORE: best})
    return reports


class _Asks(Searcher):  # type: ignore[misc]  # Ray's classes are Any here
    """Hands out the trials that were interrupted, and then new ones."""

    def __init__(self, store: StudyStore, watcher: "_Watcher") -> None:
        super().__init__(metric=BEST_SCORE, mode="max")
        self.store = store
        self.watcher = watcher
        self.waiting = store.interrupted()
        self.begun = len(store.trials()) + len(self.waiting)

    def suggest(self, trial_id: str) -> Any:
        """Return the values of the next trial."""
        if self.waiting:
            asked = self.waiting.pop(0)
        elif self.begun >= self.watcher.total or self.watcher.budget_is_spent:
            self.watcher.all_begun = True
            return Searcher.FINISHED
        else:
            asked = self.store.ask()
            self.begun += 1
        self.watcher.asked[trial_id] = asked
        return {**asked.values, NUMBER: asked.number}

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        """Do nothing: the watcher tells the store."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing for Ray: the store has all of it."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


@dataclass
class _Seen:
    """What the driver knows of a trial that runs."""

    asked: Asked
    run: Run
    started: float
    before_s: float
    over: bool = False
    trial: Any = field(default=None, repr=False)


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """Ends the study when its budget is spent."""

    def __init__(self, spent: Callable[[], bool]) -> None:
        self.spent = spent

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether this trial has to end: only with all others."""
        return False

    def stop_all(self) -> bool:
        """Return whether all have to end."""
        return self.spent()


class _Watcher(tune.Callback):  # type: ignore[misc]
    """Keeps the store, the tracker and the progress bar up to date with what Ray Tune reports."""

    def __init__(
        self, store: StudyStore, share: Share, tracker: Tracker, study: Run, describe: Callable[[Run], None]
    ) -> None:
        self.store = store
        self.share = share
        self.tracker = tracker
        self.study = study
        self.describe = describe
        self.asked: dict[str, Asked] = {}
        self.seen: dict[str, _Seen] = {}
        self.all_begun = False
        self.begun_at = time.monotonic()
        done = store.trials()
        self.best = max((trial.best[SELECTION] for trial in done if trial.history), default=float("-inf"))
        self.total = number_of_trials(store.tune.sampler, store.tune.space, store.tune.num_samples)
        self.bar = tqdm(total=self.total, initial=len(done), desc="tune", unit="trial")
        self.stopper = _Stopper(lambda: self.budget_is_spent)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its callbacks with its own state."""
        return {}

    @property
    def budget_is_spent(self) -> bool:
        """Whether the time is up or the Dice that was asked for is reached."""
        own = self.store.tune
        late = own.hours is not None and time.monotonic() - self.begun_at > 3600 * own.hours
        return late or (own.target_dice is not None and self.best >= own.target_dice)

    @property
    def complete(self) -> bool:
        """Whether the study has come to an end of its own."""
        return self.budget_is_spent or (self.all_begun and all(seen.over for seen in self.seen.values()))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Start the trial's run, or go on with it."""
        if trial.trial_id in self.seen:
            return
        asked = self.asked[trial.trial_id]
        history = self.store.checkpoints(asked.number).history()
        before_s = history[-1]["time/total_s"] if history else 0.0
        self.seen[trial.trial_id] = _Seen(asked, self._run(asked), time.time(), before_s, trial=trial)

    def _run(self, asked: Asked) -> Run:
        key = {STUDY_TAG: self.store.name, TRIAL_TAG: asked.name}
        run = self.tracker.find_run(TUNE, key)
        if run is not None:
            return run
        params = self.store.params
        # Not checked here: values that do not go together are found by the trial, and fail it alone.
        own = {**params.flatten(), **asked.values, "train.epochs": params.tune.epochs}
        train = {name.removeprefix("train."): value for name, value in own.items() if name.startswith("train.")}
        rule = in_force(params.train.model_copy(update=train), params.distribute, self.share.devices)
        run = self.tracker.start_run(
            TUNE, f"trial-{asked.name}", params={**own, **rule}, tags=key, parent=self.study.id
        )
        self.describe(run)
        return run

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        """Log an epoch; one that was logged before is dropped by the run."""
        seen = self.seen[trial.trial_id]
        seen.run.log_metrics(_metrics(result), step=result[EPOCH])
        if result[BEST_SCORE] > self.best:
            self.best = result[BEST_SCORE]
            self.bar.set_postfix(best=f"{self.best:.3f}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Write what became of it."""
        seen = self.seen[trial.trial_id]
        if not seen.over:
            self._end(seen, self._outcome(seen))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Write that the trial failed; Ray calls this once its restarts are used up, and notes the reason later."""
        seen = self.seen[trial.trial_id]
        self._end(seen, self._outcome(seen, failed=True))

    def _end(self, seen: _Seen, outcome: Trial) -> None:
        self.store.end(seen.asked.number, outcome)
        self._record(seen.run, outcome)
        self.store.set_recorded(seen.asked.number)
        self.store.keep(self.store.tune.keep)
        seen.over = True
        self.bar.update()

    def _record(self, run: Run, outcome: Trial) -> None:
        run.set_tags({"mis.state": outcome.state, **({"mis.error": outcome.error} if outcome.error else {})})
        run.log_metrics({"time/trial_s": outcome.elapsed_s})
        run.finish("FAILED" if outcome.state == "failed" else "FINISHED")

    def record_the_rest(self) -> None:
        """Record what became of trials of which a process that was killed has not done so."""
        for outcome in self.store.trials():
            number = int(outcome.name)
            if not self.store.is_recorded(number):
                run = self._run(Asked(number, outcome.values))
                for report in _reports(outcome.history):
                    run.log_metrics(_metrics(report), step=int(report[EPOCH]))
                self._record(run, outcome)
                self.store.set_recorded(number)

    def abandon(self) -> None:
        """Record that trials that still ran, if any, were ended with the study."""
        for seen in self.seen.values():
            if not seen.over:
                if self.budget_is_spent:
                    self._end(seen, self._outcome(seen))
                else:
                    seen.run.set_tags({"mis.state": "killed"})
                    seen.run.finish("KILLED")

    def note_errors(self) -> None:
        """Record why the trials that failed did; Ray knows it only now."""
        outcomes = {int(outcome.name): outcome for outcome in self.store.trials()}
        for seen in self.seen.values():
            outcome = outcomes[seen.asked.number]
            if outcome.state == "failed":
                outcome = replace(outcome, error=_reason(seen.trial))
                self.store.end(seen.asked.number, outcome)
                seen.run.set_tags({"mis.error": outcome.error})

    def _outcome(self, seen: _Seen, *, failed: bool = False) -> Trial:
        history = self.store.checkpoints(seen.asked.number).history()
        patience = seen.asked.values.get("train.patience", self.store.params.train.patience)
        if failed:
            state = "failed"
        elif history and not isfinite(history[-1]["train/loss"]):
            state = "diverged"
        elif is_finished(history, epochs=self.store.tune.epochs, patience=int(patience)):
            state = "completed"
        else:
            state = "stopped"
        return Trial(
            name=seen.asked.name,
            values=dict(seen.asked.values),
            state=state,
            history=history,
            elapsed_s=seen.before_s + time.time() - seen.started,
        )


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in report.items() if "/" in name and isinstance(value, float)}


def _reason(trial: Any) -> str:
    """Return the last line of a trial's error, which is the exception itself."""
    text = str(trial.get_error() or "its process died").strip()
    return text.splitlines()[-1][:500]
