import keras
import numpy as np
import pytest

from mis.model.metrics import dice_metrics
from mis.model.unet import connect_unet
from mis.predict.inference import Inference, predict_volume
from mis.train.checkpoint import plain
from mis.train.training_model import VALIDATION_OVERLAP, TrainingModel
from tests.networks import dice_loss, model_params


def training_model(windows=None, windows_at_once=1, **changes):
    keras.utils.set_random_seed(0)
    network = connect_unet(model_params(norm="none", **changes), 4, 3)
    model = TrainingModel(network, dice_loss(), windows=windows, windows_at_once=windows_at_once)
    model.compile(optimizer="sgd", weighted_metrics=dice_metrics(("WT", "TC", "ET")))
    return model


def batch(cases=2, shape=(12, 8, 8), seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(cases, *shape, 4)).astype(np.float32)
    target = (rng.random((cases, *shape, 3)) > 0.6).astype(np.uint8)
    return image, target, np.ones(cases, np.float32)


@pytest.mark.parametrize("at_once", [1, 2, 3, 99])
def test_a_validation_in_windows_is_the_prediction_in_windows(at_once):
    model = training_model((4, 4, 4), at_once)
    image, target, weight = batch()
    logs = model.test_on_batch(image, target, weight, return_dict=True)
    inference = Inference((4, 4, 4), VALIDATION_OVERLAP, mirror=False, batch_size=1)

    def predicted(output):
        network = keras.Model(model.inputs[0], model.outputs[output])
        return np.stack([predict_volume([network.predict_on_batch], case, 3, inference) for case in image])

    assert logs["case_loss"] == pytest.approx(float(dice_loss()(target, predicted(1))), abs=1e-5)
    for dice in dice_metrics(("WT", "TC", "ET")):
        dice.update_state(target, predicted(0))
        assert logs[dice.name] == pytest.approx(float(dice.result()), abs=1e-5)


def test_a_window_of_the_whole_case_is_the_whole_case():
    image, target, weight = batch()
    windows, whole = (
        training_model(size).test_on_batch(image, target, weight, return_dict=True) for size in ((12, 8, 8), None)
    )
    for name in ("case_loss", "dice", "dice_wt", "dice_tc", "dice_et"):
        assert windows[name] == pytest.approx(whole[name], abs=1e-5), name


def test_a_filler_of_a_validation_counts_nowhere():
    image, target, _ = batch(3)
    model = training_model((4, 4, 4), 2)
    filled = model.test_on_batch(image, target, np.array([1.5, 1.5, 0], np.float32), return_dict=True)
    model.reset_metrics()
    real = model.test_on_batch(image[:2], target[:2], np.ones(2, np.float32), return_dict=True)
    for name in ("case_loss", "dice"):
        assert filled[name] == pytest.approx(real[name], abs=1e-5)


def test_deep_supervision_changes_the_loss_and_no_name():
    image, target, weight = batch()
    deep, flat = training_model(depth=2, deep_supervision=1), training_model(depth=2)
    logs = {
        name: model.train_on_batch(image, target, weight, return_dict=True)
        for name, model in (("deep", deep), ("flat", flat))
    }
    assert set(logs["deep"]) == set(logs["flat"]) == {"loss", "case_loss", "dice", "dice_wt", "dice_tc", "dice_et"}
    assert logs["deep"]["loss"] != pytest.approx(logs["flat"]["loss"], abs=1e-4)
    assert logs["deep"]["loss"] == pytest.approx(logs["deep"]["case_loss"], abs=1e-5)
    # In validation it is the loss at full resolution, so that the two compare.
    deep, flat = training_model(depth=2, deep_supervision=1), training_model(depth=2)
    for from_deep, to_flat in ((layer, flat.get_layer(layer.name)) for layer in deep.layers if layer.name != "logits1"):
        to_flat.set_weights(from_deep.get_weights())
    validated = [model.test_on_batch(image, target, weight, return_dict=True)["case_loss"] for model in (deep, flat)]
    assert validated[0] == pytest.approx(validated[1], abs=1e-6)


def test_what_is_saved_has_one_output():
    model = training_model(depth=2, deep_supervision=1)
    saved = plain(model)
    assert saved.output_shape == (None, None, None, None, 3)
    image, _, _ = batch()
    np.testing.assert_allclose(np.asarray(saved(image)), np.asarray(model(image)[0]), atol=1e-6)


def test_gradients_reach_every_weight_also_those_of_the_levels():
    model = training_model(depth=2, deep_supervision=1)
    before = [np.asarray(weight) for weight in model.trainable_variables]
    model.train_on_batch(*batch())
    for weight, value in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(np.asarray(weight), value), weight.path
