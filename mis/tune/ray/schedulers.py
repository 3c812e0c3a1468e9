"""Who stops a trial early, or changes it: Ray Tune's schedulers."""

import random
from typing import Any

import numpy as np
from ray.tune.schedulers import (
    ASHAScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from mis.params.space import Space
from mis.params.tune import TuneParams
from mis.track.names import BEST_DICE
from mis.tune.epochs import EPOCH
from mis.tune.ray.messages import MARK, TRIAL, VALUES, values_of
from mis.tune.study.population import changed, mutations

CHANGES_SEED = 104_729
"""Added to the sampler's seed for what a population changes: the seed itself is that of the first trials' values."""


def make_scheduler(params: TuneParams) -> TrialScheduler | None:
    """Return Ray's scheduler for a search; None where trials are neither stopped nor changed.

    Trials are compared by their best validation Dice so far.
    """
    scheduler, epochs = params.scheduler, params.epochs
    compared = {"time_attr": EPOCH, "metric": BEST_DICE, "mode": "max"}
    grace = min(scheduler.grace_epochs, epochs)
    if scheduler.name == "asha":
        return ASHAScheduler(**compared, max_t=epochs, grace_period=grace, reduction_factor=scheduler.reduction_factor)
    if scheduler.name == "median":
        return MedianStoppingRule(**compared, grace_period=grace)
    if scheduler.name == "hyperband":
        return HyperBandScheduler(**compared, max_t=epochs, reduction_factor=scheduler.reduction_factor)
    if scheduler.name == "pbt":
        # Ray's scheduler draws from these two generators.
        random.seed(params.sampler.seed + CHANGES_SEED)
        np.random.seed((params.sampler.seed + CHANGES_SEED) % 2**32)
        return Population(
            epochs,
            **compared,
            perturbation_interval=scheduler.interval_epochs,
            hyperparam_mutations={TRIAL: {VALUES: mutations(params.space)}},
            custom_explore_fn=Explore(params.space),
            log_config=False,
        )
    return None


class Population(PopulationBasedTraining):  # type: ignore[misc]  # Ray's class has no types
    """Ray's scheduler, which would also change a trial that has ended: not to the values that it was trained with."""

    def __init__(self, epochs: int, **options: Any) -> None:
        super().__init__(**options)
        self.epochs = epochs

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return what becomes of a trial after an epoch."""
        if result[EPOCH] >= self.epochs:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(controller, trial, result))


class Explore:
    """Brings values that Ray's scheduler has multiplied by 0.8 or 1.2 back into the space, and marks each change."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration that the trial goes on with."""
        change = changed(self.space, values_of(config))
        return {TRIAL: {**config[TRIAL], VALUES: change["values"], MARK: change["mark"]}}
