"""How sure a mean over cases is, and whether two models differ on the same cases."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import mean

import numpy as np
from scipy import stats

RESAMPLES = 9999
"""Of the bootstrap: the ends of an interval then move by some hundredths of its length from seed to seed."""

LEVEL = 0.95


def mean_of_known(values: Iterable[float]) -> float:
    """Return the mean of the values that are numbers; not a number where there is none."""
    known = [value for value in values if not isnan(value)]
    return mean(known) if known else nan


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: The mean.
        low: The lower end; not a number where there are fewer than two values.
        high: The upper end.
    """

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean and its 95 % confidence interval: percentiles of the means of cases that are drawn again.

    Args:
        values: A value for each case; those that are not numbers are left out.
        seed: Of the drawing.
    """
    known = np.array([value for value in values if not isnan(value)])
    if not known.size:
        return Interval(nan, nan, nan)
    if known.size == 1:
        return Interval(float(known[0]), nan, nan)
    drawn = stats.bootstrap(
        (known,), np.mean, n_resamples=RESAMPLES, method="percentile", confidence_level=LEVEL,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = drawn.confidence_interval
    return Interval(float(known.mean()), float(low), float(high))


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two models on the same cases.

    Attributes:
        cases: How many cases both have a score for.
        effect: The mean of the second one's score minus the first one's, with its interval.
        median: The median of that difference.
        p: The probability of a difference as large by chance, Wilcoxon's signed-rank test, both sides; 1 where no case
            differs.
        better: In how many cases the second one's score is better.
        worse: In how many it is worse.
    """

    cases: int
    effect: Interval
    median: float
    p: float
    better: int
    worse: int


def paired_test(
    first: Sequence[float], second: Sequence[float], seed: int = 0, *, lower_is_better: bool = False
) -> PairedTest:
    """Compare two scores of the same cases (Wilcoxon, 1945).

    Args:
        first: A score for each case.
        second: The other one's, in the same order; a case without one of them is left out.
        seed: Of the bootstrap.
        lower_is_better: Whether the score is a distance or an error.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if not isnan(a) and not isnan(b)]
    differences = np.array([b - a for a, b in pairs])
    differs = differences[differences != 0]
    return PairedTest(
        cases=len(pairs),
        effect=bootstrap_mean(differences.tolist(), seed),
        median=float(np.median(differences)) if pairs else nan,
        p=float(stats.wilcoxon(differs).pvalue) if differs.size else 1.0,
        better=int((differences < 0).sum() if lower_is_better else (differences > 0).sum()),
        worse=int((differences > 0).sum() if lower_is_better else (differences < 0).sum()),
    )
