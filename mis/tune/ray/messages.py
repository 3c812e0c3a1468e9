"""What the driver and the worker of a trial tell each other through Ray Tune."""

from typing import Any

from mis.tune.trial import Trial, Values

TRIAL = "trial"
"""The key, in the configuration that Ray hands to a worker, of all that concerns the trial."""

NUMBER, VALUES, FIRST, EPOCHS = "number", "values", "first", "epochs"
"""Below it: the trial's number, its values, those that were suggested for it first, and how many epochs it has had."""

ATTEMPT, WORKED_S, NODE, FINISHED = "attempt", "worked_s", "node", "finished"
"""What a report has beside its epoch: which start of the trial this is, how many seconds it has worked, its node by
Ray's name, and whether the epoch was its last one."""


def config_of(trial: Trial, first: Values, epochs: int) -> dict[str, Any]:
    """Return the configuration that Ray hands to the worker of a trial.

    Args:
        trial: The trial, with the values that it has now.
        first: The values that were suggested for it first.
        epochs: How many epochs it has had.
    """
    return {TRIAL: {NUMBER: trial.number, VALUES: dict(trial.values), FIRST: dict(first), EPOCHS: epochs}}


def epochs_of(config: dict[str, Any]) -> int:
    """Return how many epochs a trial has had."""
    return int(config[TRIAL][EPOCHS])


def note_epochs(config: dict[str, Any], epochs: int) -> None:
    """Note how many epochs a trial has had, for the worker that may have to go on with it on another node."""
    config[TRIAL][EPOCHS] = epochs


def suggested_trial(config: dict[str, Any]) -> Trial:
    """Return the trial that a configuration is for."""
    return Trial(config[TRIAL][NUMBER], config[TRIAL][VALUES])
