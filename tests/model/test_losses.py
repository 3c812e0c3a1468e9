import importlib.util
import os

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.model.losses import SegmentationLoss, cross_entropy, focal, soft_dice, tversky
from mis.model.metrics import CaseLoss, Dice, hard_dice
from mis.model.unet import build_unet
from tests.networks import dice_loss, model_params

few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 999)

# The same source here and under another backend.
FORWARD = """
import json, sys
import keras, numpy as np
from mis.model.losses import SegmentationLoss, soft_dice
from mis.model.metrics import CaseLoss, Dice, hard_dice
from mis.model.unet import build_unet
from tests.networks import model_params

def to_list(value):
    return np.asarray(keras.ops.convert_to_numpy(value)).tolist()

data = np.load(sys.argv[1])
truth, probability, weight = data["truth"], data["probability"], data["weight"]
result = {
    "soft": to_list(soft_dice(truth, probability, 0.01)),
    "hard": to_list(hard_dice(truth, probability, 0.5)),
}
losses = [SegmentationLoss(name, 0.01, 0.3, 2.0) for name in ("dice", "dice_cross_entropy", "tversky", "focal")]
for loss in losses:
    result[loss.loss] = to_list(loss(truth, data["logits"], weight))
    result[loss.loss + " of levels"] = to_list(loss(truth, [data["logits"], data["logits"][:, ::2, ::2, ::2]], weight))
for metric in (Dice(), Dice(1), CaseLoss(losses[1])):
    metric.update_state(truth, data["logits"] if isinstance(metric, CaseLoss) else probability, weight)
    result[f"{metric.name}{getattr(metric, 'region', '')}"] = to_list(metric.result())
for norm in ("batch", "group", "instance", "none"):
    model = build_unet(model_params(norm=norm, block="residual", downsampling="stride", activation="leaky_relu"), 3, 3)
    model.set_weights([data[f"{norm}{index}"] for index in range(len(model.get_weights()))])
    result[norm] = to_list(model(probability, training=False))
print(json.dumps([keras.backend.backend(), result]))
"""


def pair(seed=0, cases=4, regions=3):
    rng = np.random.default_rng(seed)
    shape = (cases, 4, 4, 4, regions)
    return (rng.random(shape) > 0.6).astype(np.float32), rng.random(shape).astype(np.float32)


def region(truth, probability):
    """Return a batch of one case with one region of these voxels."""
    return tuple(np.array(values, np.float32).reshape(1, -1, 1, 1, 1) for values in (truth, probability))


def logits_of(probability):
    """Return logits; a probability of 0 or 1 becomes one so large that float32 rounds it back."""
    inside = np.clip(probability.astype(np.float64), 1e-30, 1 - 1e-12)
    return np.where(probability >= 1, 100, np.log(inside / (1 - inside))).astype(np.float32)


# ---- Values ----


@pytest.mark.parametrize(
    ("truth", "probability", "smooth", "expected"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 0.01, 1.0),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.01, 0.01 / 4.01),
        ([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], 0.01, 2.01 / 4.01),
        ([1, 0, 0, 0], [0.25, 0.25, 0, 0], 1.0, 1.5 / 2.5),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0.01, 1.0),
        ([0, 0, 0, 0], [1, 1, 1, 1], 0.01, 0.01 / 4.01),
        ([1, 1, 1, 1], [0, 0, 0, 0], 0.01, 0.01 / 4.01),
    ],
)
def test_by_hand(truth, probability, smooth, expected):
    truth, probability = region(truth, probability)
    assert float(soft_dice(truth, probability, smooth)[0, 0]) == pytest.approx(expected, rel=1e-6)
    assert float(tversky(truth, probability, 0.5, smooth)[0, 0]) == pytest.approx(expected, rel=1e-6)
    assert float(dice_loss(smooth)(truth, logits_of(probability))) == pytest.approx(1 - expected, abs=1e-6)


def test_the_loss_is_the_mean_over_regions_and_cases():
    truth, probability = np.zeros((2, 1, 1, 2, 2), np.float32), np.zeros((2, 1, 1, 2, 2), np.float32)
    truth[0, ..., 0] = probability[0, ..., 0] = 1  # Dice 1
    truth[0, ..., 1] = 1  # Dice 0.5 / 2.5
    truth[1, ..., 0, 0] = probability[1, ..., 1, 0] = 1  # Dice 0.5 / 2.5
    dice = np.array([[1, 0.2], [0.2, 1]])  # the last one is empty
    np.testing.assert_allclose(np.asarray(soft_dice(truth, probability, 0.5)), dice, rtol=1e-6)
    logits = logits_of(probability)
    assert float(dice_loss(0.5)(truth, logits)) == pytest.approx(0.4)
    np.testing.assert_allclose(np.asarray(dice_loss(0.5, reduction=None)(truth, logits)), [0.4, 0.4], rtol=1e-6)


@given(seed=seeds)
@few
def test_it_is_a_share_and_symmetric_for_masks(seed):
    truth, probability = pair(seed)
    dice = np.asarray(soft_dice(truth, probability, 0.01))
    assert ((dice > 0) & (dice <= 1)).all()
    other = (probability > 0.5).astype(np.float32)
    np.testing.assert_allclose(
        np.asarray(soft_dice(truth, other, 0.01)), np.asarray(soft_dice(other, truth, 0.01)), rtol=1e-6
    )


@given(seed=seeds)
@few
def test_the_order_of_the_voxels_does_not_matter(seed):
    truth, probability = pair(seed)
    flipped = [np.flip(array, axis=(1, 3)).copy() for array in (truth, probability)]
    np.testing.assert_allclose(
        np.asarray(soft_dice(*flipped, 0.01)), np.asarray(soft_dice(truth, probability, 0.01)), rtol=1e-5
    )


def test_more_probability_inside_and_less_outside_is_better():
    truth, probability = pair()
    dice = np.asarray(soft_dice(truth, probability, 0.01))
    better = probability + 0.1 * (truth - probability)
    assert (np.asarray(soft_dice(truth, better, 0.01)) > dice).all()


def test_masks_of_whole_numbers_are_taken():
    truth, probability = pair()
    np.testing.assert_array_equal(
        np.asarray(soft_dice(truth.astype(np.uint8), probability, 0.01)),
        np.asarray(soft_dice(truth, probability, 0.01)),
    )


def test_tversky_by_hand():
    truth, probability = region([1, 1, 0, 0], [0.5, 1, 0.5, 0])
    # overlap 1.5, false positives 0.5, false negatives 0.5
    assert float(tversky(truth, probability, 0.2, 0.0)[0, 0]) == pytest.approx(1.5 / (1.5 + 0.1 + 0.4))
    truth, probability = region([1, 1, 0, 0], [1, 0, 0, 0])
    assert float(tversky(truth, probability, 0.2, 1.0)[0, 0]) == pytest.approx(1.5 / (1 + 0.8 + 0.5))


def test_a_small_alpha_punishes_what_is_missed():
    truth, missed = region([1, 1, 0, 0], [1, 0, 0, 0])
    too_much = region([1, 1, 0, 0], [1, 1, 1, 0])[1]
    low, high = (
        [float(tversky(truth, wrong, alpha, 0.01)[0, 0]) for wrong in (missed, too_much)] for alpha in (0.2, 0.8)
    )
    assert low[0] < high[0]
    assert low[1] > high[1]


def test_cross_entropy_and_focal_by_hand():
    truth, probability = region([1, 0], [0.8, 0.4])
    logits = logits_of(probability)
    entropy = -(np.log(0.8) + np.log(0.6)) / 2
    assert float(cross_entropy(truth, logits)[0, 0]) == pytest.approx(entropy, rel=1e-5)
    assert float(focal(truth, logits, 0.0)[0, 0]) == pytest.approx(entropy, rel=1e-5)
    expected = -(0.2**2 * np.log(0.8) + 0.4**2 * np.log(0.6)) / 2
    assert float(focal(truth, logits, 2.0)[0, 0]) == pytest.approx(expected, rel=1e-5)


@given(seed=seeds)
@few
def test_cross_entropy_and_focal_are_keras_own(seed):
    truth, logits = pair(seed)
    logits = 20 * logits - 10
    by_voxel = keras.ops.binary_crossentropy(truth, logits, from_logits=True)
    np.testing.assert_allclose(
        np.asarray(cross_entropy(truth, logits)), np.asarray(by_voxel).mean(axis=(1, 2, 3)), rtol=1e-5
    )
    mild = logits / 4  # Keras clips probabilities at 1e-7, and its focal loss is the mean over the last axis
    keras_focal = keras.losses.binary_focal_crossentropy(truth, mild, gamma=2.0, from_logits=True)
    ours = np.asarray(focal(truth, mild, 2.0)).mean(axis=-1)
    np.testing.assert_allclose(ours, np.asarray(keras_focal).mean(axis=(1, 2, 3)), rtol=1e-4)


def test_dice_with_cross_entropy_is_their_sum():
    truth, logits = pair()
    both = SegmentationLoss("dice_cross_entropy", 0.01, 0.5, 2.0, reduction=None)(truth, logits)
    dice = dice_loss(reduction=None)(truth, logits)
    entropy = np.asarray(cross_entropy(truth, logits)).mean(axis=-1)
    np.testing.assert_allclose(np.asarray(both), np.asarray(dice) + entropy, rtol=1e-6)


def test_logits_of_any_size_have_finite_losses_and_gradients():
    import tensorflow as tf

    truth = np.array([0, 1, 0, 1], np.float32).reshape(1, 4, 1, 1, 1)
    for name in ("dice", "dice_cross_entropy", "tversky", "focal"):
        logits = tf.Variable(np.array([-200, 200, 200, -200], np.float32).reshape(1, 4, 1, 1, 1))
        with tf.GradientTape() as tape:
            value = SegmentationLoss(name, 0.01, 0.5, 1.0)(truth, logits)
        assert np.isfinite(float(value))
        assert np.isfinite(np.asarray(tape.gradient(value, logits))).all(), name
    # Where the probability is rounded to 0, the cross entropy goes on rising with the logit.
    entropy = [
        float(cross_entropy(truth[:, 1:2], logits[:, 3:])[0, 0]),
        float(cross_entropy(truth[:, 1:2], 2 * logits[:, 3:])[0, 0]),
    ]
    assert entropy == pytest.approx([200, 400])


@pytest.mark.parametrize("name", ["dice", "dice_cross_entropy", "tversky", "focal"])
def test_an_empty_region_has_a_loss_that_falls_with_what_is_predicted_there(name):
    loss = SegmentationLoss(name, 0.01, 0.3, 2.0)
    empty = np.zeros((1, 4, 4, 4, 1), np.float32)
    losses = [float(loss(empty, np.full_like(empty, logit))) for logit in (4.0, 0.0, -4.0, -8.0, -40.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-6)
    # As the docstrings say: s / (P + s) and s / (2 alpha P + s) for P = 32.
    expected = {"dice": 1 - 0.01 / 32.01, "tversky": 1 - 0.01 / (0.6 * 32 + 0.01)}
    if name in expected:
        assert losses[1] == pytest.approx(expected[name], rel=1e-6)


# ---- Deep supervision ----


def test_levels_weigh_half_of_the_level_above_and_add_up_to_1():
    truth, logits = pair()
    truth[:] = 1
    logits = [logits, logits[:, ::2, ::2, ::2], logits[:, ::4, ::4, ::4]]
    alone = [float(dice_loss()(np.ones_like(level), level)) for level in logits]
    assert float(dice_loss()(truth, logits)) == pytest.approx((4 * alone[0] + 2 * alone[1] + alone[2]) / 7, rel=1e-6)


def test_the_truth_of_a_level_is_the_mean_over_its_voxels():
    truth = np.zeros((1, 2, 2, 4, 1), np.float32)
    truth[0, :, :, 0] = 1  # half of the first coarse voxel, nothing of the second
    fine, coarse = np.zeros_like(truth), np.array([0.0, -100.0], np.float32).reshape(1, 1, 1, 2, 1)
    overlap, size = 0.5 * 0.5, 0.5 + 0.5
    expected = 2 / 3 * float(dice_loss()(truth, fine)) + 1 / 3 * (1 - (2 * overlap + 0.01) / (size + 0.01))
    assert float(dice_loss()(truth, [fine, coarse])) == pytest.approx(expected, rel=1e-6)


# ---- Weights and batches ----


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (1, 3), (1, 1, 1, 1)])
def test_the_mean_over_cases_does_not_depend_on_how_they_are_divided(sizes):
    truth, probability = pair()
    loss, total, begin = dice_loss(), 0.0, 0
    for size in sizes:
        total += size * float(loss(truth[begin : begin + size], probability[begin : begin + size]))
        begin += size
    assert total / 4 == pytest.approx(float(loss(truth, probability)), abs=1e-6)


def test_a_case_of_weight_0_is_left_out_and_the_mean_is_over_the_others():
    truth, probability = pair()
    loss = dice_loss()
    weight = np.array([4 / 3, 4 / 3, 4 / 3, 0], np.float32)  # as the data set gives them
    expected = float(loss(truth[:3], probability[:3]))
    assert float(loss(truth, probability, weight)) == pytest.approx(expected, abs=1e-6)
    truth[3] = 1 - truth[3]
    assert float(loss(truth, probability, weight)) == pytest.approx(expected, abs=1e-6)


def test_it_comes_back_from_its_configuration():
    loss = SegmentationLoss("tversky", 0.25, 0.3, 3.0, name="renamed")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is SegmentationLoss
    assert again.get_config() == loss.get_config()
    truth, logits = pair()
    assert float(again(truth, logits)) == float(loss(truth, logits))


# ---- Other backends ----


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "numpy"])
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="without TensorFlow and torch, Keras has the backends jax and numpy, and both need the package jax",
)
def test_another_backend_computes_the_same(run_script, tmp_path, backend):
    truth, probability = pair()
    weight = np.array([2, 2, 0, 0], np.float32)
    logits = np.random.default_rng(1).normal(size=truth.shape).astype(np.float32)
    arrays = {"truth": truth, "probability": probability, "logits": logits, "weight": weight}
    expected = {
        "soft": soft_dice(truth, probability, 0.01),
        "hard": hard_dice(truth, probability, 0.5),
    }
    losses = [SegmentationLoss(name, 0.01, 0.3, 2.0) for name in ("dice", "dice_cross_entropy", "tversky", "focal")]
    for loss in losses:
        expected[loss.loss] = loss(truth, logits, weight)
        expected[f"{loss.loss} of levels"] = loss(truth, [logits, logits[:, ::2, ::2, ::2]], weight)
    for metric in (Dice(), Dice(1), CaseLoss(losses[1])):
        metric.update_state(truth, logits if isinstance(metric, CaseLoss) else probability, weight)
        expected[f"{metric.name}{getattr(metric, 'region', '')}"] = metric.result()
    for norm in ("batch", "group", "instance", "none"):
        params = model_params(norm=norm, block="residual", downsampling="stride", activation="leaky_relu")
        model = build_unet(params, 3, 3)
        arrays |= {f"{norm}{index}": array for index, array in enumerate(model.get_weights())}
        expected[norm] = model(probability, training=False)
    np.savez(tmp_path / "data.npz", **arrays)
    used, result = run_script(FORWARD, tmp_path / "data.npz", env=os.environ | {"KERAS_BACKEND": backend})
    assert used == backend
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], np.asarray(value), atol=1e-5, err_msg=name)
