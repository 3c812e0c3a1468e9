"""Optuna's interface for a Gaussian process: Optuna's own needs PyTorch, this one takes scikit-learn's."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

CANDIDATES = 2048
"""Random points among which the one with the largest expected improvement is taken."""


class GaussianProcessSampler(BaseSampler):
    """Suggests where a Gaussian process (Matern 5/2, a length for each dimension) expects the largest improvement.

    Numbers are scaled to 0..1 (in the logarithm where the range is logarithmic), a choice has a dimension for
    each of its values. Trials that still run count with what the process expects of them (Ginsbourger et al.
    2010, "kriging believer"), so that those that run at once differ.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        """Begin with as many random trials as `startup_trials`."""
        self.rng = np.random.default_rng(seed)
        self.random = RandomSampler(seed=seed)
        self.startup_trials = startup_trials

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Return the parameters that all trials have."""
        space = IntersectionSearchSpace(include_pruned=True).calculate(study)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of all parameters together; none before there are enough trials."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        running = [
            known_trial
            for known_trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if known_trial != trial
        ]
        known = [
            known_trial
            for known_trial in done
            if known_trial.value is not None and search_space.keys() <= known_trial.params.keys()
        ]
        if not search_space or len(known) < self.startup_trials:
            return {}
        seen = np.array([_encode(known_trial.params, search_space) for known_trial in known])
        scores = np.array([known_trial.value for known_trial in known], dtype=float)
        scores = (scores - scores.mean()) / (scores.std() or 1.0)
        pending = [
            _encode(known_trial.params, search_space)
            for known_trial in running
            if search_space.keys() <= known_trial.params.keys()
        ]
        process = self._fit(seen, scores)
        for point in pending:
            seen = np.vstack([seen, point])
            scores = np.append(scores, process.predict(point[None])[0])
        if pending:
            process = self._fit(seen, scores)
        candidates = [_draw(search_space, self.rng) for _ in range(CANDIDATES)]
        mean, deviation = process.predict(
            np.array([_encode(candidate, search_space) for candidate in candidates]), return_std=True
        )
        return candidates[int(np.argmax(_expected_improvement(mean, deviation, scores.max())))]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - a value of whatever kind
        """Return a random value."""
        return self.random.sample_independent(study, trial, param_name, param_distribution)

    def _fit(self, points: np.ndarray, scores: np.ndarray) -> GaussianProcessRegressor:
        kernel = ConstantKernel() * Matern(np.ones(points.shape[1]), (0.05, 20.0), nu=2.5) + WhiteKernel(1e-3)
        seed = int(self.rng.integers(2**31))
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=seed)
        with warnings.catch_warnings():  # a length at its bound says that a parameter does not matter
            warnings.simplefilter("ignore", ConvergenceWarning)
            return process.fit(points, scores)


def _expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Return by how much each point is expected to be better than the best so far."""
    deviation = np.maximum(deviation, 1e-9)
    steps = (mean - best) / deviation
    improvement: np.ndarray = deviation * (steps * norm.cdf(steps) + norm.pdf(steps))
    return improvement


def _draw(space: Mapping[str, BaseDistribution], rng: np.random.Generator) -> dict[str, Any]:
    return {name: _from_unit(distribution, rng.random()) for name, distribution in space.items()}


def _from_unit(distribution: BaseDistribution, share: float) -> Any:  # noqa: ANN401 - a value of whatever kind
    """Return the value at a share of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(share * len(distribution.choices)), len(distribution.choices) - 1)]
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"unknown distribution {distribution}")
    low, high = _bounds(distribution)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        low, high = low - distribution.step / 2, high + distribution.step / 2
    value = np.exp(low + share * (high - low)) if distribution.log else low + share * (high - low)
    if distribution.step is not None:
        value = distribution.low + distribution.step * round((value - distribution.low) / distribution.step)
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _encode(values: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> np.ndarray:
    """Return a point of the unit cube."""
    point: list[float] = []
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            point += _one_hot(values[name], distribution.choices)
        elif isinstance(distribution, FloatDistribution | IntDistribution):
            low, high = _bounds(distribution)
            value = np.log(values[name]) if distribution.log else values[name]
            point.append((value - low) / (high - low))
    return np.array(point)


def _one_hot(value: object, choices: Sequence[object]) -> list[float]:
    return [float(choice == value and type(choice) is type(value)) for choice in choices]


def _bounds(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    return (
        (float(np.log(distribution.low)), float(np.log(distribution.high)))
        if distribution.log
        else (float(distribution.low), float(distribution.high))
    )
