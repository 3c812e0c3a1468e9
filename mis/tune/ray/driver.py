"""A study on Ray Tune: many trials at once, each on its share of the devices.

The driver, which is this process, is the only one that writes to the tracker and that begins and ends
trials in the study's store. Ray schedules; it keeps nothing: checkpoints and what was reported are in
the store.
"""

import random
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import ConcurrencyLimiter, Searcher

from mis.params.tune import TuneParams
from mis.track.base import Run, Tracker
from mis.track.names import BEST_DICE
from mis.train.allocate import Share
from mis.tune.ray.callback import Watcher
from mis.tune.ray.worker import CLONED, EPOCH, TRIAL, VALUES, told, train_one
from mis.tune.study.store import StudyStore, Trial, Values

CHANGES_SEED = 104_729
"""Added to the seed for what a population changes."""

RAY_STATE = "ray-"
"""Prefix of the folder in which Ray keeps its own notes while a study runs."""


def run_study(
    store: StudyStore,
    share: Share,
    *,
    records: Path,
    tracker: Tracker,
    study: Run,
    contents: Callable[[], Mapping[str, np.ndarray]] | None = None,
    describe: Callable[[Run], None] | None = None,
) -> list[Trial]:
    """Run a study to its end, from wherever it is.

    Args:
        store: The study; every node must see its folder.
        share: What each trial has.
        records: The folder of records, as every node sees it.
        tracker: Where each trial becomes a run below `study`.
        study: The study's run.
        contents: Reads the cases, for the memory of each node; None where trials read them from their files.
        describe: Records where a trial's run comes from.
    """
    own = store.tune
    store.catch_up()
    watcher = Watcher(store, share, tracker, study, describe or _nothing)
    watcher.record_the_rest()
    for left in store.folder.glob(f"{RAY_STATE}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=RAY_STATE, dir=store.folder) as ray_state, watcher.board:
        trainable = tune.with_parameters(
            train_one,
            store=StudyStore(store.folder, store.params),
            share=share,
            records=records,
            contents=contents() if contents else None,
            session=f"{time.time_ns():x}",
        )
        given, search = _suggestions(store, watcher, share.concurrent)
        tuner = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([dict(share.bundle)])),
            param_space=given,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=_scheduler(own),
                num_samples=-1 if search else 1,
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
        watcher.record_the_rest()
    store.keep(own.keep)
    return store.trials()


def _nothing(run: Run) -> None:
    """Record nothing more with a run."""


# ---- Which trials ----


def _suggestions(store: StudyStore, watcher: Watcher, concurrent: int) -> tuple[dict[str, Any], Searcher | None]:
    """Return the trials that Ray Tune is given at once, or who suggests them one by one."""
    asked = store.interrupted() if store.is_population else []
    if store.is_population:
        asked += [store.ask() for _ in range(store.total - len(store.trials()) - len(asked))]
    if asked:  # Ray's scheduler of populations takes no searcher
        watcher.unended |= {one.number for one in asked}
        watcher.all_begun = True
        return {TRIAL: tune.grid_search([told(one)[TRIAL] for one in asked])}, None
    search: Searcher = _Asks(store, watcher)
    if store.tune.scheduler.name != "hyperband":  # it lets trials wait for each other: more are begun than can run
        # As many as can run: a suggestion made earlier would know less.
        search = ConcurrencyLimiter(search, max_concurrent=concurrent)
    return {}, search


class _Asks(Searcher):  # type: ignore[misc]  # Ray's classes are Any here
    """Hands out the trials that were interrupted, and then new ones."""

    def __init__(self, store: StudyStore, watcher: Watcher) -> None:
        super().__init__(metric=BEST_DICE, mode="max")
        self.store = store
        self.watcher = watcher
        self.waiting = store.interrupted()
        self.begun = len(store.trials()) + len(self.waiting)

    def suggest(self, trial_id: str) -> Any:
        """Return what the next trial is told."""
        if self.waiting:
            asked = self.waiting.pop(0)
        elif self.begun >= self.store.total or self.watcher.budget_is_spent:
            self.watcher.all_begun = True
            return Searcher.FINISHED
        else:
            asked = self.store.ask()
            self.begun += 1
        self.watcher.unended.add(asked.number)
        return told(asked)

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        """Do nothing: the watcher tells the store."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing for Ray: the store has all of it."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


# ---- Who stops them ----


def _scheduler(params: TuneParams) -> TrialScheduler | None:
    own, epochs = params.scheduler, params.epochs
    compared = {"time_attr": EPOCH, "metric": BEST_DICE, "mode": "max"}
    grace = min(own.grace_epochs, epochs)
    if own.name == "asha":
        return ASHAScheduler(**compared, max_t=epochs, grace_period=grace, reduction_factor=own.reduction_factor)
    if own.name == "median":
        return MedianStoppingRule(**compared, grace_period=grace)
    if own.name == "hyperband":
        return HyperBandScheduler(**compared, max_t=epochs, reduction_factor=own.reduction_factor)
    if own.name == "pbt":
        # Ray's scheduler takes these two as they are. The seed itself is that of the first trial's values.
        random.seed(params.sampler.seed + CHANGES_SEED)
        np.random.seed((params.sampler.seed + CHANGES_SEED) % 2**32)
        return _Population(
            epochs,
            **compared,
            perturbation_interval=own.interval_epochs,
            hyperparam_mutations={TRIAL: {VALUES: _mutations(params)}},
            custom_explore_fn=_Bounded(params),
            log_config=False,
        )
    return None


class _Population(PopulationBasedTraining):  # type: ignore[misc]  # Ray's class has no types
    """Ray's, which also changes a trial that has ended: its values would be others than it was trained with."""

    def __init__(self, epochs: int, **options: Any) -> None:
        super().__init__(**options)
        self.epochs = epochs

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return what becomes of a trial after an epoch."""
        if result[EPOCH] >= self.epochs:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(controller, trial, result))


def _mutations(params: TuneParams) -> dict[str, Any]:
    """Return what Ray's scheduler changes, and where it draws a value anew from."""
    searched = {name: one for name, one in params.space.items() if one.is_searched}
    return {
        name: list(one.grid()) if one.is_listed else lambda one=one: one.at(random.random())  # noqa: S311 - no secret
        for name, one in searched.items()
    }


class _Bounded:
    """Brings values that Ray's scheduler has changed back into the space, and marks each change."""

    def __init__(self, params: TuneParams) -> None:
        self.space = params.space

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return what the trial is told; Ray multiplies by 0.8 or 1.2, whatever the bounds."""
        own = config[TRIAL]
        return {TRIAL: {**own, VALUES: self.values(own[VALUES]), CLONED: uuid.uuid4().hex}}

    def values(self, values: Values) -> Values:
        """Return values of the space."""
        return {name: self.space[name].clip(value) for name, value in values.items()}
