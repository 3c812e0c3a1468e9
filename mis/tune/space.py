"""What is searched: the order of the parameters, their conditions, and how Optuna is asked for them."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import cast

from optuna import Trial

from mis.params import Choice, Distribution, Fixed, FloatRange, IntRange, Scalar

Space = Mapping[str, Distribution]


def suggest(trial: Trial, space: Space) -> dict[str, Scalar]:
    """Ask for a value of each parameter of the space, in its order; those whose condition is not met are left out.

    A fixed value is not asked for, and comes as it is.
    """
    values: dict[str, Scalar] = {}
    for name, one in space.items():
        if applies(one, values):
            values[name] = one.value if isinstance(one, Fixed) else _ask(trial, name, one)
    return values


def applies(one: Distribution, values: Mapping[str, Scalar]) -> bool:
    """Return whether a parameter is searched in a trial that has these values.

    >>> groups = Choice(type="choice", values=(2, 4), when={"model.norm": "group"})
    >>> applies(groups, {"model.norm": "group"}), applies(groups, {"model.norm": "batch"}), applies(groups, {})
    (True, False, False)
    """
    return all(name in values and values[name] in wanted for name, wanted in one.conditions.items())


def grid(space: Space) -> dict[str, Sequence[Scalar]]:
    """Return the values of each searched parameter, for a grid; see `grid_values`."""
    return {name: grid_values(one) for name, one in space.items() if not isinstance(one, Fixed)}


def grid_size(space: Space) -> int:
    """Return the number of points of the grid.

    >>> grid_size({"a": Choice(type="choice", values=(1, 2)), "b": IntRange(type="int", low=1, high=5, step=2)})
    6
    """
    return prod(len(values) for values in grid(space).values())


def grid_values(one: Distribution) -> Sequence[Scalar]:
    """Return every value of a parameter that has finitely many.

    >>> grid_values(FloatRange(type="float", low=0.0, high=0.5, step=0.25))
    (0.0, 0.25, 0.5)
    """
    if isinstance(one, Choice):
        return one.values
    if isinstance(one, IntRange):
        return tuple(one.values)
    if isinstance(one, FloatRange) and one.step is not None:
        return tuple(one.low + number * one.step for number in range(int((one.high - one.low) / one.step + 1e-9) + 1))
    raise ValueError("a continuous range has no grid")


def _ask(trial: Trial, name: str, one: FloatRange | IntRange | Choice) -> Scalar:
    if isinstance(one, Choice):
        chosen = trial.suggest_categorical(name, one.values)
        return cast("Scalar", chosen)
    if isinstance(one, FloatRange):
        return trial.suggest_float(name, one.low, one.high, log=one.log, step=one.step)
    return trial.suggest_int(name, one.low, one.high, log=one.log, step=one.step or 1)
