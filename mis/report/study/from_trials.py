"""Trials as a study of Optuna, in memory, for the figures that are drawn of one."""

import math
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from mis.params.base import Scalar
from mis.report.study.drawable import no_announcement
from mis.tune.trial import STATE_ATTRIBUTE, Trial


def study_of(trials: Sequence[Trial]) -> optuna.Study:
    """Return a study whose objective is the validation Dice, with trials of the same numbers.

    Ranges are those of the values that there are: logarithmic where they span more than a decade.
    """
    with no_announcement():
        study = optuna.create_study(direction="maximize")
    distributions = {
        name: _distribution([trial.values[name] for trial in trials if name in trial.values]) for name in _names(trials)
    }
    by_number = {trial.number: trial for trial in trials}
    for number in range(max(by_number, default=-1) + 1):
        study.add_trial(_frozen(by_number.get(number), distributions))
    return study


def _names(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.values))


def _frozen(trial: Trial | None, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    if trial is None or not math.isfinite(trial.score):
        return create_trial(state=OptunaState.FAIL)
    return create_trial(
        value=trial.score,
        params=dict(trial.values),
        distributions={name: distributions[name] for name in trial.values},
        user_attrs={STATE_ATTRIBUTE: str(trial.state)},
    )


def _distribution(values: Sequence[Scalar]) -> BaseDistribution:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    # The few numbers of a choice come up twice or more on average.
    is_choice = len(values) > 1 and 2 * len(set(values)) <= len(values)
    if len(numbers) < len(values) or is_choice or not all(map(math.isfinite, numbers)):
        return CategoricalDistribution(sorted(set(values), key=lambda value: (isinstance(value, str), value)))
    low, high = min(numbers), max(numbers)
    is_log = low > 0 and high >= 10 * low
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(float(low), float(high), log=is_log)
