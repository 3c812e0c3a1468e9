import importlib.util
import os

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.model.losses import SoftDiceLoss, soft_dice
from mis.model.metrics import Dice, SoftDiceMean, hard_dice
from mis.model.unet import build_unet
from mis.params.model import ModelParams

few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 999)

# The same source here and under another backend.
FORWARD = """
import json, sys
import keras, numpy as np
from mis.model.losses import SoftDiceLoss, soft_dice
from mis.model.metrics import Dice, SoftDiceMean, hard_dice
from mis.model.unet import build_unet
from mis.params.model import ModelParams

def to_list(value):
    return np.asarray(keras.ops.convert_to_numpy(value)).tolist()

data = np.load(sys.argv[1])
truth, probability, weight = data["truth"], data["probability"], data["weight"]
result = {
    "soft": to_list(soft_dice(truth, probability, 0.01)),
    "hard": to_list(hard_dice(truth, probability, 0.5)),
    "loss": to_list(SoftDiceLoss(0.01)(truth, probability, weight)),
}
for metric in (Dice(), Dice(1), SoftDiceMean(0.01)):
    metric.update_state(truth, probability, weight)
    result[f"{metric.name}{getattr(metric, 'region', '')}"] = to_list(metric.result())
for norm in ("batch", "group", "none"):
    model = build_unet(ModelParams(depth=1, base_filters=4, kernel_size=3, norm=norm, groups=2), 3, 3)
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
    assert float(SoftDiceLoss(smooth)(truth, probability)) == pytest.approx(1 - expected, abs=1e-6)


def test_the_loss_is_the_mean_over_regions_and_cases():
    truth, probability = np.zeros((2, 1, 1, 2, 2), np.float32), np.zeros((2, 1, 1, 2, 2), np.float32)
    truth[0, ..., 0] = probability[0, ..., 0] = 1  # Dice 1
    truth[0, ..., 1] = 1  # Dice 0.5 / 2.5
    truth[1, ..., 0, 0] = probability[1, ..., 1, 0] = 1  # Dice 0.5 / 2.5
    dice = np.array([[1, 0.2], [0.2, 1]])  # the last one is empty
    np.testing.assert_allclose(np.asarray(soft_dice(truth, probability, 0.5)), dice, rtol=1e-6)
    assert float(SoftDiceLoss(0.5)(truth, probability)) == pytest.approx(0.4)
    np.testing.assert_allclose(np.asarray(SoftDiceLoss(0.5, reduction=None)(truth, probability)), [0.4, 0.4], rtol=1e-6)


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


# ---- Weights and batches ----


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (1, 3), (1, 1, 1, 1)])
def test_the_mean_over_cases_does_not_depend_on_how_they_are_divided(sizes):
    truth, probability = pair()
    loss, total, begin = SoftDiceLoss(0.01), 0.0, 0
    for size in sizes:
        total += size * float(loss(truth[begin : begin + size], probability[begin : begin + size]))
        begin += size
    assert total / 4 == pytest.approx(float(loss(truth, probability)), abs=1e-6)


def test_a_case_of_weight_0_is_left_out_and_the_mean_is_over_the_others():
    truth, probability = pair()
    loss = SoftDiceLoss(0.01)
    weight = np.array([4 / 3, 4 / 3, 4 / 3, 0], np.float32)  # as the data set gives them
    expected = float(loss(truth[:3], probability[:3]))
    assert float(loss(truth, probability, weight)) == pytest.approx(expected, abs=1e-6)
    truth[3] = 1 - truth[3]
    assert float(loss(truth, probability, weight)) == pytest.approx(expected, abs=1e-6)


def test_it_comes_back_from_its_configuration():
    loss = SoftDiceLoss(0.25, name="renamed")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is SoftDiceLoss
    assert (again.smooth, again.name, again.reduction) == (0.25, "renamed", loss.reduction)


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
    arrays = {"truth": truth, "probability": probability, "weight": weight}
    expected = {
        "soft": soft_dice(truth, probability, 0.01),
        "hard": hard_dice(truth, probability, 0.5),
        "loss": SoftDiceLoss(0.01)(truth, probability, weight),
    }
    for metric in (Dice(), Dice(1), SoftDiceMean(0.01)):
        metric.update_state(truth, probability, weight)
        expected[f"{metric.name}{getattr(metric, 'region', '')}"] = metric.result()
    for norm in ("batch", "group", "none"):
        model = build_unet(ModelParams(depth=1, base_filters=4, kernel_size=3, norm=norm, groups=2), 3, 3)
        arrays |= {f"{norm}{index}": array for index, array in enumerate(model.get_weights())}
        expected[norm] = model(probability, training=False)
    np.savez(tmp_path / "data.npz", **arrays)
    used, result = run_script(FORWARD, tmp_path / "data.npz", env=os.environ | {"KERAS_BACKEND": backend})
    assert used == backend
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], np.asarray(value), atol=1e-5, err_msg=name)
