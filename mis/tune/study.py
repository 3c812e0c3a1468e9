"""A study on Ray Tune: many trials at once, each on its share of the devices.

The driver, which is this process, is the only one that writes to the tracker.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from tqdm import tqdm

from mis.errors import MisError
from mis.params import Params, Scalar, SchedulerParams
from mis.track.base import TUNE, Run, Tracker
from mis.track.names import BEST_SCORE, SELECTION
from mis.train.allocate import Share
from mis.train.batch_rule import in_force
from mis.train.checkpoint import BEST, History, best_epoch, is_finished, read_history
from mis.tune.search import make_sampler
from mis.tune.space import to_optuna

TRIAL_TAG = "mis.trial"


@dataclass(frozen=True)
class Trial:
    """What became of one trial.

    Attributes:
        name: Its number, in the order of their starts, e.g. "003".
        values: What it had in place of params.yaml, by dotted name.
        state: `completed`, `stopped` (by the scheduler) or `failed`.
        history: The metrics of each epoch.
        elapsed_s: Seconds from its start to its last word, set-up included.
        best_model: The model after its best epoch; None if it had no epoch.
        error: Why it failed.
    """

    name: str
    values: Mapping[str, Scalar]
    state: str
    history: History
    elapsed_s: float
    best_model: Path | None = None
    error: str = ""

    @property
    def best(self) -> dict[str, float]:
        """The metrics of its best epoch; empty if it had none."""
        return self.history[best_epoch(self.history) - 1] if self.history else {}

    def row(self) -> dict[str, object]:
        """Return the trial's line of a table."""
        figures = {name: round(value, 6) for name, value in self.best.items() if name.startswith("val/")}
        return {
            "trial": self.name,
            "state": self.state,
            "epochs": len(self.history),
            **figures,
            "elapsed_s": round(self.elapsed_s, 2),
            **self.values,
            "error": self.error,
        }


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best validation Dice, the earliest of equals.

    Raises:
        MisError: No trial finished an epoch.
    """
    scored = [trial for trial in trials if trial.history]
    if not scored:
        reason = next((trial.error for trial in trials if trial.error), "unknown")
        raise MisError(
            "at least one trial must finish an epoch", got=f"{len(trials)} failed trials, the first with: {reason}"
        )
    return max(scored, key=lambda trial: (trial.best[SELECTION], -int(trial.name)))


def run_study(
    params: Params,
    share: Share,
    *,
    records: Path,
    tracker: Tracker,
    study: Run,
    folder: Path,
    describe: Callable[[Run], None] | None = None,
) -> list[Trial]:
    """Run a study to its end.

    Args:
        params: All parameters; `params.tune` is the study.
        share: What each trial has.
        records: The folder of records, as every node sees it.
        tracker: Where each trial becomes a run below `study`.
        study: The study's run.
        folder: Ray's state and the trials' checkpoints; every node must see it.
        describe: Records where a trial's run comes from.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    watcher = _Watcher(params, share, tracker, study, describe or _nothing)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_train_one, params=params, share=share, records=records),
            tune.PlacementGroupFactory([share.bundle]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=_search(params, share),
            scheduler=_scheduler(params.tune.scheduler, params.tune.epochs),
            num_samples=params.tune.num_samples,
            reuse_actors=True,  # 9 s for the first trial of a process, 1 s for each later one
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[watcher],
            failure_config=tune.FailureConfig(max_failures=params.tune.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
            verbose=0,
        ),
    )
    with watcher.bar:
        try:
            tuner.fit()
            if watcher.ended < params.tune.num_samples:
                # On Ctrl-C Ray Tune stops the trials and returns as if the study were complete.
                raise KeyboardInterrupt
        finally:
            watcher.abandon()
    return watcher.trials()


def _nothing(run: Run) -> None:
    """Record nothing more with a run."""


def _search(params: Params, share: Share) -> ConcurrencyLimiter:
    space: dict[str, BaseDistribution] = to_optuna(params.tune.space)
    search = OptunaSearch(space, metric=BEST_SCORE, mode="max", sampler=make_sampler(params.tune.sampler))
    # As many as can run: a suggestion made earlier would know less.
    return ConcurrencyLimiter(search, max_concurrent=share.concurrent)


def _scheduler(params: SchedulerParams, epochs: int) -> TrialScheduler | None:
    if params.name == "none":
        return None
    return ASHAScheduler(
        metric=BEST_SCORE,
        mode="max",
        max_t=epochs,
        grace_period=min(params.grace_epochs, epochs),
        reduction_factor=params.reduction_factor,
    )


def _train_one(config: dict[str, Scalar], *, params: Params, share: Share, records: Path) -> None:
    """Run in a worker: one trial, its epochs reported to Ray Tune."""
    from mis.quiet import import_tensorflow

    import_tensorflow()
    from mis.tune.trial import run_trial

    def report(metrics: Mapping[str, float], checkpoint: Path) -> None:
        tune.report(dict(metrics), checkpoint=tune.Checkpoint.from_directory(checkpoint))

    begun = tune.get_checkpoint()
    own = params.for_trial(config, params.tune.epochs)
    own.check_spread("tune.devices_per_trial", share.devices)
    if begun is None:
        run_trial(own, share, records, report)
        return
    with begun.as_directory() as folder:
        run_trial(own, share, records, report, Path(folder))


@dataclass
class _Seen:
    """What the driver knows of a trial so far."""

    name: str
    run: Run
    started: float
    ended: float
    error: str = ""
    over: bool = False
    failed: bool = False
    trial: Any = field(default=None, repr=False)


class _Watcher(tune.Callback):  # type: ignore[misc]  # Ray's classes are Any here
    """Keeps the tracker and the progress bar up to date with what Ray Tune reports."""

    def __init__(
        self, params: Params, share: Share, tracker: Tracker, study: Run, describe: Callable[[Run], None]
    ) -> None:
        self.params = params
        self.share = share
        self.tracker = tracker
        self.study = study
        self.describe = describe
        self.seen: dict[str, _Seen] = {}
        self.best = float("-inf")
        self.bar = tqdm(total=params.tune.num_samples, desc="tune", unit="trial")

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its callbacks with the study's state."""
        return {"params": self.params, "share": self.share}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Start the trial's run, unless the trial begins again after its process died."""
        now = time.time()
        if trial.trial_id in self.seen:
            return
        name = f"{len(self.seen):03d}"
        # Not checked here: values that do not go together are found by the trial, and fail it alone.
        own = {**self.params.flatten(), **trial.config, "train.epochs": self.params.tune.epochs}
        train = {name.removeprefix("train."): value for name, value in own.items() if name.startswith("train.")}
        rule = in_force(self.params.train.model_copy(update=train), self.params.distribute, self.share.devices)
        tags = {TRIAL_TAG: trial.trial_id}
        run = self.tracker.start_run(TUNE, f"trial-{name}", params={**own, **rule}, tags=tags, parent=self.study.id)
        self.describe(run)
        self.seen[trial.trial_id] = _Seen(name, run, now, now, trial=trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        """Log an epoch."""
        seen = self.seen[trial.trial_id]
        seen.ended = time.time()
        metrics = {name: value for name, value in result.items() if "/" in name and isinstance(value, float)}
        seen.run.log_metrics(metrics, step=result["training_iteration"])
        if result[BEST_SCORE] > self.best:
            self.best = result[BEST_SCORE]
            self.bar.set_postfix(best=f"{self.best:.3f}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Finish the run."""
        seen = self.seen[trial.trial_id]
        outcome = self._outcome(seen)
        seen.run.set_tags({"mis.state": outcome.state})
        seen.run.log_metrics({"time/trial_s": outcome.elapsed_s})
        seen.run.finish()
        seen.over = True
        self.bar.update()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Record that the trial failed; Ray calls this once its restarts are used up, and notes the reason later."""
        seen = self.seen[trial.trial_id]
        seen.run.set_tags({"mis.state": "failed"})
        seen.run.finish("FAILED")
        seen.over = seen.failed = True
        self.bar.update()

    @property
    def ended(self) -> int:
        """How many trials have come to an end of their own."""
        return sum(seen.over for seen in self.seen.values())

    def abandon(self) -> None:
        """Record that trials that still ran, if any, were ended with the study."""
        for seen in self.seen.values():
            if not seen.over:
                seen.run.set_tags({"mis.state": "killed"})
                seen.run.finish("KILLED")

    def trials(self) -> list[Trial]:
        """Return what became of each trial, and record why those that failed did."""
        for seen in self.seen.values():
            if seen.failed:
                seen.error = _reason(seen.trial)
                seen.run.set_tags({"mis.error": seen.error})
        return [self._outcome(seen) for seen in self.seen.values()]

    def _outcome(self, seen: _Seen) -> Trial:
        checkpoint = Path(seen.trial.checkpoint.path) if seen.trial.checkpoint else None
        history = read_history(checkpoint) if checkpoint else []
        patience = seen.trial.config.get("train.patience", self.params.train.patience)
        complete = is_finished(history, epochs=self.params.tune.epochs, patience=patience)
        return Trial(
            name=seen.name,
            values=dict(seen.trial.config),
            state="failed" if seen.failed else "completed" if complete else "stopped",
            history=history,
            elapsed_s=seen.ended - seen.started,
            best_model=checkpoint / BEST if checkpoint else None,
            error=seen.error,
        )


def _reason(trial: Any) -> str:
    """Return the last line of a trial's error, which is the exception itself."""
    text = str(trial.get_error() or "its process died").strip()
    return text.splitlines()[-1][:500]
