"""What of a study can be drawn: its trials with all their objectives, and the parameters in which they differ."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mis.tune.trial import STATE_ATTRIBUTE
from mis.tune.trial import TrialState as OurState

FEWEST = 4
"""Completed trials from which on importances are drawn: two on either side of the line between good and bad."""


@dataclass(frozen=True)
class Drawable:
    """A study as the figures take it.

    Both studies are copies in which trials have the numbers that they have in the original. A completed
    trial has finite objectives, and each parameter one distribution that holds all its values.

    Attributes:
        study: With one objective or two.
        dice: With the first objective alone.
        objectives: The objectives' names.
        early: The numbers of the trials that were stopped early.
    """

    study: optuna.Study
    dice: optuna.Study
    objectives: tuple[str, ...]
    early: frozenset[int]

    @classmethod
    def of(cls, study: optuna.Study) -> "Drawable":
        """Return what there is to draw of a study whose first objective is the Dice."""
        names = study.metric_names or ["Dice", "second objective"][: len(study.directions)]
        trials = study.get_trials(deepcopy=False)
        stopped = [trial for trial in trials if trial.user_attrs.get(STATE_ATTRIBUTE) == OurState.STOPPED]
        early = frozenset(trial.number for trial in stopped)
        return cls(_copy(study, trials, len(names)), _copy(study, trials, 1), tuple(names), early)

    @property
    def figures(self) -> list[str]:
        """Names of the figures that can be drawn."""
        if not self.trials:
            return []
        can = {
            "history": True,
            "parallel_coordinates": bool(self.parameters),
            "importances": bool(self.importances),
            "slice": bool(self.parameters),
            "pareto_front": len(self.objectives) == 2,
        }
        return [name for name, is_drawn in can.items() if is_drawn]

    @cached_property
    def trials(self) -> list[FrozenTrial]:
        """The completed trials; the value of each is its Dice."""
        return self.dice.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    @property
    def best(self) -> FrozenTrial:
        """The trial with the best Dice, the earliest of equals."""
        return max(self.trials, key=lambda trial: (dice_of(trial), -trial.number))

    @property
    def stopped(self) -> list[FrozenTrial]:
        """The trials that were stopped early; they have a Dice all the same."""
        return [trial for trial in self.trials if trial.number in self.early]

    @property
    def failed(self) -> list[FrozenTrial]:
        """The trials that have no Dice and never will."""
        return self.dice.get_trials(deepcopy=False, states=(TrialState.FAIL,))

    @property
    def front(self) -> list[FrozenTrial]:
        """The trials that no other one surpasses in both objectives, the best second objective first."""
        return sorted(self.study.best_trials, key=lambda trial: (trial.values[1], trial.number))

    @property
    def spans_a_decade(self) -> bool:
        """Whether the second objective is better shown by its logarithm."""
        seconds = [trial.values[1] for trial in self.study.get_trials(states=(TrialState.COMPLETE,))]
        return bool(0 < 10 * min(seconds) <= max(seconds))

    @cached_property
    def parameters(self) -> list[str]:
        """The parameters, by name, that have more than one value."""
        values: dict[str, set[object]] = {}
        for trial in self.trials:
            for name, value in trial.params.items():
                values.setdefault(name, set()).add(value)
        return sorted(name for name, distinct in values.items() if len(distinct) > 1)

    def having(self, name: str) -> list[FrozenTrial]:
        """Return the completed trials in which a parameter was searched."""
        return [trial for trial in self.trials if name in trial.params]

    def distribution(self, name: str) -> BaseDistribution:
        """Return where a parameter's values lie."""
        return self.having(name)[0].distributions[name]

    @cached_property
    def importances(self) -> dict[str, float]:
        """The share of each parameter in what sets the good trials apart, the largest first; their sum is 1.

        Empty with too few trials, with fewer than two parameters to share it, or where all trials are equally good.
        """
        if not self.good_share:
            return {}
        with single_trials_are_fine():
            return optuna.importance.get_param_importances(
                self.dice, evaluator=self.evaluator, params=list(self.parameters)
            )

    @property
    def evaluator(self) -> "optuna.importance.BaseImportanceEvaluator":
        """PED-ANOVA (Watanabe et al. 2023): of Optuna's, the one that knows of conditional parameters; no seed."""
        return optuna.importance.PedAnovaImportanceEvaluator(target_quantile=self.good_share)

    @property
    def good_share(self) -> float:
        """The share of trials that count as good: the better half, or fewer where the worst are many; 0 if undefined.

        Optuna's own tenth is one trial of twelve: too few to compare with the others.
        """
        scores = [dice_of(trial) for trial in self.trials]
        if len(scores) < FEWEST or len(self.parameters) < 2:
            return 0.0
        good = min(math.ceil(len(scores) / 2), sum(score > min(scores) for score in scores))
        # Optuna rounds the number of trials up: from half a trial less, so that rounding errors do no harm.
        return (good - 0.5) / len(scores) if good else 0.0


def dice_of(trial: FrozenTrial) -> float:
    """Return the Dice of a completed trial."""
    return float(trial.values[0])


@contextmanager
def single_trials_are_fine() -> Iterator[None]:
    """Let pass what Optuna says of a conditional parameter that one trial has, or all but one: it counts little."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some regimes for parameter", UserWarning)
        yield


def _copy(study: optuna.Study, trials: Sequence[FrozenTrial], objectives: int) -> optuna.Study:
    """Return a study in memory of the first objectives alone."""
    distributions = _distributions(trial for trial in trials if _is_complete(trial))
    with no_announcement():
        copy = optuna.create_study(directions=study.directions[:objectives])
    copy.add_trials(_copied(trial, distributions, objectives) for trial in trials)
    return copy


@contextmanager
def no_announcement() -> Iterator[None]:
    """Keep Optuna from telling users of a study that is none of theirs."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _is_complete(trial: FrozenTrial) -> bool:
    """Return whether a trial has its figures; one that was stopped early has them too."""
    ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.values is not None
    return ended and all(map(math.isfinite, trial.values))


def _copied(trial: FrozenTrial, distributions: Mapping[str, BaseDistribution], objectives: int) -> FrozenTrial:
    """Return a trial without what the figures do not show, such as attributes, which would be in the page."""
    if _is_complete(trial):
        known = {name: distributions[name] for name in trial.params}
        return create_trial(values=trial.values[:objectives], params=trial.params, distributions=known)
    has_failed = trial.state.is_finished() or trial.user_attrs.get(STATE_ATTRIBUTE) == OurState.FAILED
    return create_trial(state=TrialState.FAIL if has_failed else trial.state)


def _distributions(trials: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return a distribution for each parameter that holds all its values.

    Optuna takes a value out of its range where a person has enqueued it, and refuses to copy it.
    """
    seen: dict[str, list[tuple[BaseDistribution, Any]]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            seen.setdefault(name, []).append((trial.distributions[name], value))
    return {name: _common(*zip(*pairs, strict=True)) for name, pairs in seen.items()}


def _common(distributions: Sequence[BaseDistribution], values: Sequence[Any]) -> BaseDistribution:
    first = distributions[0]
    if isinstance(first, CategoricalDistribution):
        return first  # Optuna has its choices never change
    numbers = [
        distribution for distribution in distributions if isinstance(distribution, FloatDistribution | IntDistribution)
    ]
    if all(distribution == first for distribution in numbers) and all(_holds(numbers[0], value) for value in values):
        return first
    low = min([distribution.low for distribution in numbers] + list(values))
    high = max([distribution.high for distribution in numbers] + list(values))
    is_log = all(distribution.log for distribution in numbers) and low > 0
    if all(isinstance(distribution, IntDistribution) for distribution in numbers):
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(float(low), float(high), log=is_log)


def _holds(distribution: FloatDistribution | IntDistribution, value: float) -> bool:
    steps = (value - distribution.low) / distribution.step if distribution.step else 0.0
    return distribution.low <= value <= distribution.high and abs(steps - round(steps)) < 1e-8
