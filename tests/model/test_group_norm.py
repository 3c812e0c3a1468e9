"""Group normalisation from sums per channel against Keras' own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mis.model.group_norm import accelerate, from_channel_sums

SHAPE = (2, 6, 5, 4, 8)


def layers(groups, dtype="float32", **options):
    """Return Keras' own layer and ours, with the same weights."""
    both = [keras.layers.GroupNormalization(groups, axis=-1, dtype=dtype, **options) for _ in range(2)]
    weights = np.random.default_rng(1)
    for layer in both:
        layer.build(SHAPE)
    for own, other in zip(*(layer.weights for layer in both), strict=True):
        own.assign(weights.normal(1, 0.5, own.shape))
        other.assign(own)
    return both[0], from_channel_sums(both[1])


def image(mean=0.0, spread=1.0):
    """Return channels of unlike means and spreads."""
    rng = np.random.default_rng(0)
    scale = np.linspace(0.5, 2, SHAPE[-1])
    return (mean * scale + spread * scale * rng.normal(size=SHAPE)).astype(np.float32)


@pytest.mark.parametrize("mean", [0.0, 3.0, -100.0])
@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_it_is_keras_own(groups, mean):
    """Compared in float64, as a large mean costs Keras' own float32 more than that."""
    exact = layers(groups, "float64")[0](tf.constant(image(mean), tf.float64))
    np.testing.assert_allclose(np.asarray(layers(groups)[1](image(mean))), exact, atol=1e-5)


def test_a_mean_of_a_thousand_deviations_costs_no_more_than_with_keras():
    exact = np.asarray(layers(4, "float64")[0](tf.constant(image(1000.0), tf.float64)))
    keras_own, ours = (np.abs(np.asarray(layer(image(1000.0))) - exact).max() for layer in layers(4))
    assert ours <= keras_own
    assert ours < 1e-3


@pytest.mark.parametrize("mean", [0.0, 20.0])
def test_its_gradients_are_keras_own(mean):
    batch, weight = tf.constant(image(mean)), tf.constant(image())

    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(batch)
            loss = tf.reduce_mean(layer(batch) * weight)
        return tape.gradient(loss, [batch, layer.gamma, layer.beta])

    own, ours = map(gradients, layers(4))
    for expected, value in zip(own, ours, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.1}])
def test_it_heeds_the_layer_s_options(options):
    own, ours = layers(4, **options)
    np.testing.assert_allclose(np.asarray(ours(image())), np.asarray(own(image())), atol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_does_not_overflow(precision):
    """Squares of 1000 are above what float16 holds."""
    own, ours = layers(2, precision)
    batch = tf.cast(image(spread=1000.0), own.compute_dtype)
    assert ours(batch).dtype == own(batch).dtype
    np.testing.assert_allclose(np.float32(ours(batch)), np.float32(own(batch)), rtol=1e-2, atol=1e-2)
    assert np.isfinite(np.float32(ours(batch))).all()


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
