"""Who suggests the next configuration."""

from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from mis.params import SamplerParams

STARTUP_TRIALS = 4
"""Random trials before TPE has something to learn from; Optuna's 10 is most of a small study."""


def make_sampler(params: SamplerParams) -> BaseSampler:
    """Return Optuna's sampler, seeded.

    TPE looks at parameters together, and takes trials that still run for as bad as the worst, so
    that those that run at once differ.
    """
    if params.name == "random":
        return RandomSampler(seed=params.seed)
    return TPESampler(seed=params.seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True)
