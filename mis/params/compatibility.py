"""Which samplers, schedulers, spaces and starting points go together in a search.

The rules are here and not with the search, because params.yaml is checked as a whole when it is read: a search that
cannot be is refused before the stages in front of it have run.
"""

from collections.abc import Callable

from mis.params.space import Range
from mis.params.tune import TuneParams

CHANGEABLE = ("train.learning_rate", "train.beta_1", "train.beta_2")
"""Parameters that can change in the middle of a training: its weights and its optimizer's state stay."""

SMALLEST_POPULATION = 4
"""Trials of which the worst quarter is one."""


def check_conditions(params: TuneParams) -> None:
    """Check that each condition of the space is on a parameter before it, and can be met."""
    before: dict[str, Range] = {}
    for name, searched_range in params.space.items():
        for other, wanted in searched_range.conditions.items():
            if other not in before:
                raise ValueError(f"{name} is searched when {other} has a value: {other} must stand before it")
            for value in wanted:
                if before[other].is_listed and value not in before[other].grid():
                    raise ValueError(f"{name} is searched when {other} is {value!r}, which {other} never is")
        before[name] = searched_range


def check_sampler(params: TuneParams) -> None:
    """Check that the sampler can search the space."""
    name = params.sampler.name
    searched = {key: searched_range for key, searched_range in params.space.items() if searched_range.is_searched}
    for key, searched_range in searched.items():
        if searched_range.when and name in ("grid", "gp", "cmaes", "nsga2"):
            raise ValueError(f"sampler {name} takes all parameters together: {key} has a condition; use tpe")
        if name == "grid" and not searched_range.is_finite:
            raise ValueError(f"sampler grid takes every value: {key} has no step and no list of values")
        if name == "cmaes" and not searched_range.is_number:
            raise ValueError(f"sampler cmaes searches numbers: {key} is a choice; use tpe")
    if name == "cmaes" and len(searched) < 2:
        raise ValueError(f"sampler cmaes needs at least two numbers, got {len(searched)}; use tpe or gp")
    if not searched:
        raise ValueError("the space must have a parameter that is searched, got fixed ones alone")


def check_scheduler(params: TuneParams) -> None:
    """Check that the scheduler goes with the sampler."""
    if params.scheduler.name == "pbt" and params.sampler.name != "random":
        raise ValueError(
            "scheduler pbt begins all trials before it knows of one: use sampler random, or scheduler asha, got "
            f"{params.sampler.name}"
        )


def check_population(params: TuneParams) -> None:
    """Check that population based training can change what is searched, and has a population."""
    if params.scheduler.name != "pbt":
        return
    fixed = [
        key for key, searched_range in params.space.items() if key not in CHANGEABLE and searched_range.is_searched
    ]
    if fixed:
        raise ValueError(
            f"scheduler pbt changes parameters in the middle of a training, which only {', '.join(CHANGEABLE)} "
            f"can: got {', '.join(fixed)}; use asha"
        )
    if params.num_samples < SMALLEST_POPULATION:
        raise ValueError(
            f"scheduler pbt needs a population, num_samples of at least {SMALLEST_POPULATION}, got {params.num_samples}"
        )
    if params.scheduler.interval_epochs >= params.epochs:
        raise ValueError(
            "scheduler pbt looks at the population every interval_epochs, which must be below epochs = "
            f"{params.epochs}, got {params.scheduler.interval_epochs}"
        )


def check_objectives(params: TuneParams) -> None:
    """Check that sampler and scheduler take as many objectives as there are."""
    name, scheduler = params.sampler.name, params.scheduler.name
    if params.second_objective is None and name == "nsga2":
        raise ValueError("sampler nsga2 is for two objectives: set tune.second_objective, or use tpe")
    if params.second_objective is not None and name in ("gp", "cmaes"):
        raise ValueError(f"sampler {name} has one objective: use nsga2 or tpe, or tune.second_objective null")
    if params.second_objective is not None and scheduler != "none":
        raise ValueError(
            f"scheduler {scheduler} compares trials by their Dice alone, and would stop those that are good at the "
            "second objective: use none, or set tune.second_objective to null"
        )


def check_allocation(params: TuneParams) -> None:
    """Check that trials can change their devices."""
    if params.allocation == "fixed":
        return
    if params.devices_per_trial < 1:
        raise ValueError(
            "allocation elastic gives a trial whole devices: devices_per_trial must be at least 1, got "
            f"{params.devices_per_trial:g}; use 1, or allocation fixed"
        )
    if params.scheduler.name == "pbt":
        raise ValueError(
            "scheduler pbt lets trials wait for each other by itself, and does not go with allocation elastic: use "
            "asha, hyperband, median or none, or allocation fixed"
        )


def check_starts(params: TuneParams) -> None:
    """Check that the starting points lie in the space."""
    if params.sampler.name == "grid" and (params.start.points or params.start.study):
        raise ValueError("sampler grid takes every point once, in its own order: leave tune.start empty")
    for point in params.start.points:
        for key, value in point.items():
            if key not in params.space:
                raise ValueError(f"a starting point may set what the space has, got {key}")
            if not params.space[key].contains(value):
                raise ValueError(f"a starting point must lie in the space, got {key} = {value!r}")


SEARCH_RULES: tuple[Callable[[TuneParams], None], ...] = (
    check_conditions,
    check_sampler,
    check_scheduler,
    check_population,
    check_objectives,
    check_allocation,
    check_starts,
)
"""Each raises ValueError, which says what does not go together and what to use."""
