import keras
import numpy as np
import pytest

from mis.model.size import network_size, receptive_field
from mis.model.unet import build_unet, connect_unet
from tests.networks import model_params

# What is stored needs nothing of this project to be read.
LOADED = """
import json, sys
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], compile=False)
image = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(model(image)))
print(json.dumps("mis" in sys.modules))
"""


def unet(norm="group", depth=1, base_filters=4, kernel_size=3, **changes):
    channels = {"in_channels": changes.pop("in_channels", 4), "out_channels": changes.pop("out_channels", 3)}
    params = model_params(depth=depth, base_filters=base_filters, kernel_size=kernel_size, norm=norm, **changes)
    keras.utils.set_random_seed(0)
    return build_unet(params, **channels)


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, 4)).astype(np.float32)


def weights_by_hand(depth, base, norm, channels=(4, 3), kernel=3):
    """Count as the paper's figure shows it: two convolutions a level, down, at the bottom and up."""
    extra = {"none": 1, "batch": 2, "group": 2, "instance": 2}[norm]  # a bias, or scale and shift
    width = [base * 2**level for level in range(depth + 1)]

    def convolution(before, after):
        return kernel**3 * before * after + extra * after

    total = 0
    for before, after in zip((channels[0], *width), width, strict=False):
        total += convolution(before, after) + convolution(after, after)
    for level in range(depth):
        total += 8 * width[level + 1] * width[level] + width[level]
        total += convolution(2 * width[level], width[level]) + convolution(width[level], width[level])
    return total + width[0] * channels[1] + channels[1]


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
@pytest.mark.parametrize(("depth", "base", "kernel"), [(1, 4, 3), (2, 2, 1), (3, 8, 3), (4, 2, 5)])
def test_the_number_of_weights_by_hand(norm, depth, base, kernel):
    model = unet(norm, depth, base, kernel)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    assert trainable == weights_by_hand(depth, base, norm, kernel=kernel)


def test_the_paper_s_network_has_its_number_of_weights():
    model = unet("batch", depth=3, base_filters=8, out_channels=1)
    assert 350_000 < sum(int(np.prod(weight.shape)) for weight in model.trainable_variables) < 400_000


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
@pytest.mark.parametrize(("depth", "shape"), [(1, (2, 4, 6)), (2, (4, 8, 12)), (3, (16, 8, 8))])
def test_probabilities_have_the_grid_of_the_image(norm, depth, shape):
    model = unet(norm, depth)
    result = np.asarray(model(image(2, *shape)))
    assert result.shape == (2, *shape, 3)
    assert result.dtype == np.float32
    assert ((result > 0) & (result < 1)).all()
    # Regions are nested: their probabilities do not add up to 1.
    assert np.abs(result.sum(axis=-1) - 1).max() > 0.1


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
def test_every_weight_matters(norm):
    import tensorflow as tf

    model = unet(norm, depth=2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(image(2, 8, 8, 8), training=True) ** 2)
    for weight, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True):
        assert gradient is not None, weight.path
        assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
def test_a_case_does_not_see_the_others_of_its_batch_in_inference(norm):
    model, batch = unet(norm), image(3, 4, 4, 4)
    whole = np.asarray(model(batch, training=False))
    alone = np.concatenate([np.asarray(model(batch[index : index + 1], training=False)) for index in range(3)])
    np.testing.assert_allclose(whole, alone, atol=1e-6)


def test_only_batch_normalisation_couples_the_cases_of_a_batch_in_training():
    first, second = image(1, 4, 4, 4, seed=1), image(1, 4, 4, 4, seed=2)
    both = np.concatenate([first, 5 * second])
    differs = {}
    for norm in ("batch", "group", "instance", "none"):
        model = unet(norm)
        differs[norm] = np.abs(
            np.asarray(model(both, training=True))[:1] - np.asarray(model(first, training=True))
        ).max()
    assert differs["batch"] > 1e-3
    assert max(differs["group"], differs["instance"], differs["none"]) < 1e-6


def test_group_normalisation_ignores_the_scale_of_an_image():
    # The first convolution has no bias: a scale of the image is one of its output, which the norm takes away.
    model, batch = unet("group"), image(1, 8, 8, 8)
    np.testing.assert_allclose(np.asarray(model(batch)), np.asarray(model(batch * 100)), atol=1e-3)
    assert np.abs(np.asarray(unet("none")(batch)) - np.asarray(unet("none")(batch * 100))).max() > 0.1


def test_a_shift_by_the_coarsest_voxel_shifts_the_result():
    # Far enough from the border, which a convolution sees: 12 voxels at depth 1.
    model, batch = unet("none"), image(1, 32, 8, 8)
    shifted = np.asarray(model(np.roll(batch, 2, axis=1)))
    np.testing.assert_allclose(np.roll(np.asarray(model(batch)), 2, axis=1)[:, 14:20], shifted[:, 14:20], atol=1e-5)


def test_weights_follow_the_seed():
    first, again = unet(), unet()
    for weight, same_weight in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same_weight)


def test_probabilities_are_float32_whatever_the_precision_inside():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = unet()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[1].compute_dtype == "bfloat16"
    assert np.asarray(model(image(1, 4, 4, 4))).dtype == np.float32


def weights_of(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)


def names_of(model):
    return {layer.name for layer in model.layers}


def test_a_residual_block_adds_its_input():
    plain, residual = unet("none", depth=1), unet("none", depth=1, block="residual")
    assert {"down0_add", "bottom_add", "up0_add"} == {name for name in names_of(residual) if name.endswith("add")}
    # A convolution of kernel 1 where the filters change: 4 -> 4 needs none, 4 -> 8 at the bottom, 8 -> 4 on the way up.
    assert weights_of(residual) - weights_of(plain) == (4 * 8 + 8) + (8 * 4 + 4)
    # With both convolutions at 0, what a block gives is its input.
    for name in ("down0a", "down0b"):
        for weight in residual.get_layer(name).weights:
            weight.assign(np.zeros(weight.shape))
    inner = keras.Model(residual.inputs[0], residual.get_layer("down0b_relu").output)
    batch = image(1, 4, 4, 4)
    np.testing.assert_allclose(np.asarray(inner(batch)), np.maximum(batch, 0), atol=1e-6)


def test_a_stride_halves_the_grid_in_place_of_pooling():
    pooled, strided = unet(depth=2), unet(depth=2, downsampling="stride")
    assert weights_of(pooled) == weights_of(strided)
    assert not [name for name in names_of(strided) if "pool" in name]
    assert strided.get_layer("down1a").strides == strided.get_layer("bottoma").strides == (2, 2, 2)
    assert strided.get_layer("down0a").strides == strided.get_layer("up0a").strides == (1, 1, 1)
    assert np.asarray(strided(image(1, 8, 4, 12))).shape == (1, 8, 4, 12, 3)


def test_the_leaky_relu_lets_a_hundredth_through():
    layer = unet(activation="leaky_relu").get_layer("down0a_relu")
    np.testing.assert_allclose(np.asarray(layer(np.array([-2.0, 3.0], np.float32))), [-0.02, 3.0])


def test_filters_double_up_to_the_most():
    model = unet("none", depth=3, base_filters=4, max_filters=10)
    widths = [model.get_layer(name).filters for name in ("down0a", "down1a", "down2a", "bottoma", "up2a", "up0a")]
    assert widths == [4, 8, 10, 10, 10, 4]


def test_instance_normalisation_ignores_the_scale_of_a_channel():
    layer = unet("instance").get_layer("down0a_norm")
    batch = image(2, 4, 4, 4)
    scaled = batch * np.array([1, 10, 100, 1000], np.float32)
    np.testing.assert_allclose(np.asarray(layer(batch)), np.asarray(layer(scaled)), atol=1e-2)
    normed = np.asarray(layer(batch))
    np.testing.assert_allclose(normed.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normed.std(axis=(1, 2, 3)), 1, atol=1e-3)


def test_dropout_takes_whole_channels_in_training_alone():
    model = unet(dropout=0.5, base_filters=8)
    inner = keras.Model(model.inputs[0], model.get_layer("down0_dropout").output)
    batch = image(1, 4, 4, 4)
    trained, inferred = np.asarray(inner(batch, training=True)), np.asarray(inner(batch, training=False))
    gone = (trained == 0).all(axis=(0, 1, 2, 3))
    assert 0 < gone.sum() < 8
    np.testing.assert_allclose(trained[..., ~gone], 2 * inferred[..., ~gone], rtol=1e-5)


def test_each_supervised_level_has_logits_on_its_grid():
    network = connect_unet(model_params(depth=3, deep_supervision=2), 4, 3)
    model = keras.Model(network.image, [network.probabilities, *network.logits])
    probabilities, *logits = (np.asarray(output) for output in model(image(1, 16, 8, 8)))
    assert [level.shape for level in logits] == [(1, 16, 8, 8, 3), (1, 8, 4, 4, 3), (1, 4, 2, 2, 3)]
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits[0])), atol=1e-6)
    # What is saved has one output, and none of the weights of the other levels.
    assert weights_of(model) - weights_of(keras.Model(network.image, network.probabilities)) == (8 * 3 + 3) + (
        16 * 3 + 3
    )


@pytest.mark.slow
def test_a_model_is_read_by_keras_alone(run_script, tmp_path, records, tiny_params):
    from mis.train.checkpoint import plain
    from mis.train.fit import compile_unet

    batch = image(2, 8, 8, 8)
    np.save(tmp_path / "image.npy", batch)
    model = plain(compile_unet(tiny_params.model, tiny_params.train, records))
    model.save(tmp_path / "model.keras")
    saw_mis = run_script(LOADED, tmp_path / "model.keras", tmp_path / "image.npy", tmp_path / "result.npy")
    assert not saw_mis
    np.testing.assert_allclose(np.load(tmp_path / "result.npy"), np.asarray(model(batch)), atol=1e-6)


# ---- What a network is ----


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 1},
        {"depth": 2},
        {"depth": 1, "kernel_size": 5},
        {"depth": 2, "downsampling": "stride"},
        {"depth": 1, "stem_stride": 2},
        {"depth": 2, "stem_stride": 2, "downsampling": "stride", "block": "residual"},
    ],
)
def test_no_voxel_depends_on_more_than_the_receptive_field_and_one_on_all_of_it(changes):
    import tensorflow as tf

    # Weights above 0 and no activation of 0: what is seen has a gradient. Far from the border, along one axis.
    model = unet("none", **changes)
    for weight in model.trainable_variables:
        weight.assign(np.abs(np.asarray(weight)) + 0.01)
    network = keras.Model(model.inputs[0], model.get_layer("logits").output)
    field = receptive_field(model_params(norm="none", **changes))
    step = model_params(**changes).multiple
    length = step * (3 * field // step)
    batch = tf.Variable(np.random.default_rng(0).uniform(1, 2, (1, length, 2 * step, 2 * step, 4)).astype(np.float32))
    seen = []
    for voxel in range(length // 2, length // 2 + step):
        with tf.GradientTape() as tape:
            value = network(batch)[0, voxel, step, step, 0]
        reached = np.flatnonzero(np.abs(np.asarray(tape.gradient(value, batch))).sum(axis=(0, 2, 3, 4)))
        seen.append(reached.max() - reached.min() + 1)
    # Max pooling hands the gradient to one voxel of two, and so may miss one at each end of each pooling.
    assert max(seen) <= field
    if changes.get("downsampling") == "stride":
        assert max(seen) == field


def test_a_stem_halves_the_grid_before_the_levels_and_its_result_has_all_of_it():
    network = connect_unet(model_params(stem_stride=2, deep_supervision=0, depth=2), 4, 3)
    model = keras.Model(network.image, network.logits[0])
    assert model.get_layer("stem").strides == (2, 2, 2)
    assert np.asarray(model(image(1, 16, 8, 8))).shape == (1, 16, 8, 8, 3)
    inner = keras.Model(network.image, model.get_layer("down0b_relu").output)
    assert np.asarray(inner(image(1, 16, 8, 8))).shape == (1, 8, 4, 4, 4)
    assert model_params(stem_stride=2, depth=2).multiple == 8


def test_the_size_of_a_network_by_hand():
    size = network_size(model_params(norm="none", base_filters=2), 4, 3, (8, 8, 8), cases=2)
    assert size.weights == weights_by_hand(1, 2, "none")
    fine, coarse = 2 * 8**3, 2 * 4**3
    # The image, two convolutions and their activations, and after the skip twice as many channels, and so on.
    at_full = 4 + 4 * 2 + 2 + 4 + 4 * 2 + 3
    at_half = 2 + 4 * 4
    assert size.activation_bytes == 4 * (fine * at_full + coarse * at_half)
    assert "a receptive field of 18 voxels" in str(size)
