"""What is searched, in Optuna's terms."""

from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mis.params import Choice, Distribution, FloatRange


def to_optuna(space: Mapping[str, Distribution]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution for each dotted parameter.

    >>> to_optuna({"train.epochs": Choice(type="choice", values=(1, 2))})
    {'train.epochs': CategoricalDistribution(choices=(1, 2))}
    """
    return {name: _distribution(values) for name, values in space.items()}


def _distribution(values: Distribution) -> BaseDistribution:
    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    if isinstance(values, FloatRange):
        return FloatDistribution(values.low, values.high, log=values.log, step=values.step)
    return IntDistribution(values.low, values.high, log=values.log, step=values.step or 1)
