from math import isnan, nan

import numpy as np
import pytest
from scipy import stats

from mis.evaluate.statistics import bootstrap_mean, paired_test


def test_the_interval_holds_the_mean_and_is_that_of_normal_theory_for_many_cases():
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    interval = bootstrap_mean(values.tolist())
    assert interval.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.001)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.001)


def test_the_same_cases_have_the_same_interval():
    values = np.random.default_rng(0).normal(size=50).tolist()
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)


def test_few_cases_and_such_without_a_score():
    assert bootstrap_mean([0.5, nan]).mean == 0.5
    assert isnan(bootstrap_mean([0.5, nan]).low)
    assert isnan(bootstrap_mean([nan]).mean)
    assert isnan(bootstrap_mean([]).mean)
    assert bootstrap_mean([0.5, 0.5]).low == bootstrap_mean([0.5, 0.5]).high == 0.5


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        interval = bootstrap_mean(rng.normal(0.0, 1.0, 40).tolist())
        hits += interval.low <= 0 <= interval.high
    assert 51 <= hits <= 60


def test_a_paired_test_is_scipy_s_and_has_the_effect():
    rng = np.random.default_rng(0)
    first = rng.uniform(0.4, 0.8, 20)
    second = first + rng.normal(0.05, 0.02, 20)
    result = paired_test(first.tolist(), second.tolist())
    assert result.p == stats.wilcoxon(second - first).pvalue < 0.001
    assert result.effect.mean == pytest.approx((second - first).mean())
    assert result.effect.low > 0
    assert (result.cases, result.better + result.worse) == (20, 20)
    other = paired_test(second.tolist(), first.tolist())
    assert other.p == pytest.approx(result.p)
    assert other.median == pytest.approx(-result.median)


def test_models_that_agree_do_not_differ():
    result = paired_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (result.p, result.effect.mean, result.better, result.worse) == (1.0, 0.0, 0, 0)


def test_a_case_without_one_of_the_scores_is_left_out():
    result = paired_test([0.1, nan, 0.3], [0.2, 0.5, nan])
    assert result.cases == 1
    assert result.effect.mean == pytest.approx(0.1)
    assert isnan(paired_test([], []).median)


def test_what_is_better_depends_on_the_score():
    higher, lower = (paired_test([1, 2, 3], [2, 3, 2], lower_is_better=lower) for lower in (False, True))
    assert (higher.better, higher.worse) == (2, 1)
    assert (lower.better, lower.worse) == (1, 2)
    assert higher.effect == lower.effect
