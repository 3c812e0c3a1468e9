"""Who stops a trial early: Optuna's pruners, which remember in the study's journal what they have compared.

Ray Tune's own schedulers keep what they know in memory: a search that was killed would compare its trials anew, and
stop some at epochs that they had survived before. Optuna's keep it where the suggestions are. They never let trials
wait for each other, so that they go with every sampler, and the sampler learns from the trials that were stopped.
"""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from mis.params.tune import TuneParams

COMPARED_TRIALS = 4
"""Trials that have ended before the median of them stops another one."""


def make_pruner(params: TuneParams) -> BasePruner:
    """Return Optuna's pruner for a search; one that stops none where the scheduler is `none` or `pbt`.

    Trials are compared by their best validation Dice so far.
    """
    scheduler = params.scheduler
    grace = min(scheduler.grace_epochs, params.epochs)
    if scheduler.name == "asha":
        return SuccessiveHalvingPruner(min_resource=grace, reduction_factor=scheduler.reduction_factor)
    if scheduler.name == "median":
        return MedianPruner(n_startup_trials=COMPARED_TRIALS, n_warmup_steps=grace)
    if scheduler.name == "hyperband":
        return HyperbandPruner(
            min_resource=grace, max_resource=params.epochs, reduction_factor=scheduler.reduction_factor
        )
    return NopPruner()
