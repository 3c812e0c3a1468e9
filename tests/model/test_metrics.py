from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.model.metrics import CaseLoss, Dice, dice_metrics, hard_dice
from tests.networks import dice_loss

few = settings(max_examples=30, deadline=None)


def pair(seed=0, cases=4, regions=3):
    rng = np.random.default_rng(seed)
    shape = (cases, 4, 4, 4, regions)
    return (rng.random(shape) > 0.6).astype(np.float32), rng.random(shape).astype(np.float32)


def region(truth, probability):
    """Return a batch of one case with one region of these voxels."""
    return tuple(np.array(values, np.float32).reshape(1, -1, 1, 1, 1) for values in (truth, probability))


def value(metric, *batches):
    metric.reset_state()
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


@pytest.mark.parametrize(
    ("truth", "probability", "expected"),
    [
        ([1, 1, 0, 0], [0.9, 0.8, 0.1, 0.2], 1.0),
        ([1, 1, 0, 0], [0.9, 0.1, 0.9, 0.1], 0.5),
        ([1, 1, 1, 0], [0.9, 0.1, 0.1, 0.1], 2 / 4),
        ([1, 1, 0, 0], [0.1, 0.2, 0.9, 0.8], 0.0),
        ([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4], 1.0),  # empty in both
        ([0, 0, 0, 0], [0.9, 0.2, 0.3, 0.4], 0.0),  # empty in truth alone
        ([1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4], 0.0),  # empty in prediction alone
        ([1, 0, 0, 0], [0.5, 0.49, 0, 0], 1.0),  # from the threshold on
    ],
)
def test_by_hand(truth, probability, expected):
    truth, probability = region(truth, probability)
    assert float(hard_dice(truth, probability, 0.5)[0, 0]) == expected
    assert value(Dice(), (truth, probability)) == expected


def test_the_threshold_is_that_asked_for():
    truth, probability = region([1, 1, 0, 0], [0.9, 0.6, 0.6, 0.1])
    assert [value(Dice(threshold=at), (truth, probability)) for at in (0.05, 0.5, 0.7, 0.95)] == pytest.approx(
        [2 * 2 / 6, 2 * 2 / 5, 2 * 1 / 3, 0]
    )


@given(seed=st.integers(0, 999))
@few
def test_it_is_that_of_sets(seed):
    truth, probability = pair(seed)
    dice = np.asarray(hard_dice(truth, probability, 0.5))
    for case in range(4):
        for channel in range(3):
            inside = {tuple(index) for index in np.argwhere(truth[case, ..., channel])}
            found = {tuple(index) for index in np.argwhere(probability[case, ..., channel] >= 0.5)}
            assert dice[case, channel] == pytest.approx(2 * len(inside & found) / (len(inside) + len(found)), rel=1e-6)


def test_the_mean_over_regions_is_that_of_the_regions():
    batch = pair()
    regions = [value(Dice(index), batch) for index in range(3)]
    assert len(set(regions)) == 3
    assert value(Dice(), batch) == pytest.approx(np.mean(regions), rel=1e-6)


@pytest.mark.parametrize("metric", [Dice(), Dice(1), CaseLoss(dice_loss())])
@pytest.mark.parametrize("sizes", [(4,), (3, 1), (1, 1, 2)])
def test_every_case_counts_once_however_the_batches_are(metric, sizes):
    truth, probability = pair()
    bounds = np.cumsum((0, *sizes))
    batches = [(truth[a:b], probability[a:b]) for a, b in pairwise(bounds)]
    assert value(metric, *batches) == pytest.approx(value(metric, (truth, probability)), rel=1e-6)


@pytest.mark.parametrize("metric", [Dice(), Dice(2), CaseLoss(dice_loss())])
def test_a_case_of_weight_0_is_left_out_and_every_other_counts_once(metric):
    truth, probability = pair()
    expected = value(metric, (truth[:3], probability[:3]))
    for weight in ([4 / 3, 4 / 3, 4 / 3, 0], [1, 1, 1, 0], [9, 0.1, 2, 0]):
        assert value(metric, (truth, probability, np.array(weight, np.float32))) == pytest.approx(expected, rel=1e-6)
        column = np.array(weight, np.float32)[:, None]
        assert value(metric, (truth, probability, column)) == pytest.approx(expected, rel=1e-6)


def test_the_mean_loss_is_the_loss_of_a_full_batch():
    truth, probability = pair()
    assert value(CaseLoss(dice_loss()), (truth, probability)) == pytest.approx(
        float(dice_loss()(truth, probability)), rel=1e-6
    )


def test_reset_forgets():
    metric, batch = Dice(), pair(1)
    first = value(metric, pair(0))
    assert value(metric, batch) != first
    assert value(metric, pair(0)) == first


def test_metrics_are_named_after_the_regions_in_their_order():
    metrics = dice_metrics(("WT", "TC", "ET"))
    assert [metric.name for metric in metrics] == ["dice", "dice_wt", "dice_tc", "dice_et"]
    batch = pair()
    assert [value(metric, batch) for metric in metrics[1:]] == [value(Dice(index), batch) for index in range(3)]


@pytest.mark.parametrize(
    "metric", [Dice(2, threshold=0.25, name="renamed"), Dice(), CaseLoss(dice_loss(0.5), name="renamed")]
)
def test_it_comes_back_from_its_configuration(metric):
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    batch = pair()
    assert value(again, batch) == value(metric, batch)
