"""Who suggests the next configuration."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GridSampler, NSGAIISampler, RandomSampler, TPESampler

from mis.params.space import Space, grid, grid_size
from mis.params.tune import SamplerParams

STARTUP_TRIALS = 4
"""Random trials before a sampler has something to learn from; Optuna's 10 is most of a small study."""


GENERATIONS = 5
"""Of NSGA-II in a study; Optuna's population of 50 is more than most studies have."""


def make_sampler(
    params: SamplerParams, space: Space, number: int = 0, trials: int = 50, *, salt: int = 0
) -> BaseSampler:
    """Return Optuna's sampler for one trial of a study.

    Its random numbers come from the seed and the trial's number, and all else that it knows from the
    study: a study that is resumed goes on as it would have.

    TPE looks at parameters together, and takes trials that still run for as bad as the worst, so
    that those that run at once differ.

    Args:
        params: Which one.
        space: What is searched.
        number: Of the trial.
        trials: How many the study has.
        salt: Added to the seed.
    """
    seed = (params.seed + salt + 7919 * number) % 2**32
    if params.name == "random":
        return RandomSampler(seed=seed)
    if params.name == "grid":
        return _Grid(grid(space), seed=params.seed)
    if params.name == "gp":
        # scikit-learn takes a second to import, and a trial, which suggests nothing, imports this module.
        from mis.tune.gaussian_process import GaussianProcessSampler

        return GaussianProcessSampler(seed, STARTUP_TRIALS)
    if params.name == "cmaes":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return CmaEsSampler(seed=seed, n_startup_trials=STARTUP_TRIALS, consider_pruned_trials=True)
    if params.name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // GENERATIONS)))
    with warnings.catch_warnings():  # these are what is wanted
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True)


class _Grid(GridSampler):
    """Optuna's, which ends the study after its last point; here the study counts."""

    def after_trial(self, *args: object) -> None:
        """Do nothing: only a study that Optuna itself runs can be ended so."""


def number_of_trials(params: SamplerParams, space: Space, most: int) -> int:
    """Return how many trials a study has: at most as many as there are points of a grid."""
    return min(most, grid_size(space)) if params.name == "grid" else most
