"""Group normalisation from sums per channel, compared with that of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mis.model.group_norm import accelerate, from_channel_sums

SHAPE = (2, 6, 5, 4, 8)


def layers(groups, dtype="float32", **options):
    """Return a layer as Keras computes it and one that computes from sums per channel, with the same weights."""
    reference, faster = (keras.layers.GroupNormalization(groups, axis=-1, dtype=dtype, **options) for _ in range(2))
    rng = np.random.default_rng(1)
    reference.build(SHAPE)
    faster.build(SHAPE)
    for weight, copy in zip(reference.weights, faster.weights, strict=True):
        weight.assign(rng.normal(1, 0.5, weight.shape))
        copy.assign(weight)
    return reference, from_channel_sums(faster)


def image(mean=0.0, spread=1.0):
    """Return channels of unlike means and spreads."""
    rng = np.random.default_rng(0)
    scale = np.linspace(0.5, 2, SHAPE[-1])
    return (mean * scale + spread * scale * rng.normal(size=SHAPE)).astype(np.float32)


@pytest.mark.parametrize("mean", [0.0, 3.0, -100.0])
@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_the_result_is_that_of_keras(groups, mean):
    """The expected result is in float64: of a large mean, Keras' float32 loses more than the tolerance."""
    exact = layers(groups, "float64")[0](tf.constant(image(mean), tf.float64))
    np.testing.assert_allclose(np.asarray(layers(groups)[1](image(mean))), exact, atol=1e-5)


def test_a_mean_of_a_thousand_deviations_costs_no_more_than_with_keras():
    exact = np.asarray(layers(4, "float64")[0](tf.constant(image(1000.0), tf.float64)))
    reference, faster = (np.abs(np.asarray(layer(image(1000.0))) - exact).max() for layer in layers(4))
    assert faster <= reference
    assert faster < 1e-3


@pytest.mark.parametrize("mean", [0.0, 20.0])
def test_the_gradients_are_those_of_keras(mean):
    batch, weight = tf.constant(image(mean)), tf.constant(image())

    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(batch)
            loss = tf.reduce_mean(layer(batch) * weight)
        return tape.gradient(loss, [batch, layer.gamma, layer.beta])

    expected_gradients, faster_gradients = map(gradients, layers(4))
    for expected, value in zip(expected_gradients, faster_gradients, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.1}])
def test_the_options_of_the_layer_are_heeded(options):
    reference, faster = layers(4, **options)
    np.testing.assert_allclose(np.asarray(faster(image())), np.asarray(reference(image())), atol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_does_not_overflow(precision):
    """Squares of 1000 are above what float16 holds."""
    reference, faster = layers(2, precision)
    batch = tf.cast(image(spread=1000.0), reference.compute_dtype)
    assert faster(batch).dtype == reference(batch).dtype
    np.testing.assert_allclose(np.float32(faster(batch)), np.float32(reference(batch)), rtol=1e-2, atol=1e-2)
    assert np.isfinite(np.float32(faster(batch))).all()


def test_a_loaded_model_is_accelerated_and_saved_as_it_was(tmp_path):
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, keras.layers.GroupNormalization(4, axis=-1, name="norm")(inputs))
    model.save(tmp_path / "model.keras")
    expected = np.asarray(model(image(3.0)))
    loaded = accelerate(keras.saving.load_model(tmp_path / "model.keras"))
    np.testing.assert_allclose(np.asarray(loaded(image(3.0))), expected, atol=1e-5)
    assert loaded.get_layer("norm").get_config() == model.get_layer("norm").get_config()
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]
    loaded.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(np.asarray(again(image(3.0))), expected, atol=1e-5)
    assert type(again.get_layer("norm")) is keras.layers.GroupNormalization


def test_another_channel_axis_is_left_to_keras():
    inputs = keras.Input((8, 4, 4, 4))
    model = keras.Model(inputs, keras.layers.GroupNormalization(4, axis=1, name="norm")(inputs))
    batch = np.random.default_rng(0).normal(size=(2, 8, 4, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(accelerate(model)(batch)), np.asarray(model(batch)), atol=1e-6)
