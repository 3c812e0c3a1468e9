from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from mis.data.pipeline.intensity import add_noise, bend, blur, rescale

few = settings(max_examples=15, deadline=None)
SEED = tf.constant([3, 4], tf.int64)
CHANGES = {
    "noise": partial(add_noise, std=tf.constant(0.5), seed=SEED),
    "blur": partial(blur, sigma_vox=tf.constant(1.0)),
    "rescale": partial(rescale, factor=tf.constant([0.5, 1.0, 1.5, 2.0]), shift=tf.constant([0.0, 1.0, -1.0, 2.0])),
    "bend": partial(bend, gamma=tf.constant([0.7, 0.9, 1.1, 1.5])),
}


def brain_image(shape=(10, 9, 8), seed=0):
    """Return an image, standardised over the brain, and where the brain is."""
    random = np.random.default_rng(seed)
    brain = np.linalg.norm(np.indices(shape) / np.reshape(shape, (3, 1, 1, 1)) - 0.45, axis=0)[..., np.newaxis] < 0.4
    image = random.normal(size=(*shape, 4))
    image = (image - image.mean(axis=(0, 1, 2), where=brain)) / image.std(axis=(0, 1, 2), where=brain)
    return np.where(brain, image, 0).astype(np.float32), brain


def line(*values):
    """Return voxels along x with a single modality."""
    return tf.constant(np.reshape(values, (-1, 1, 1, 1)), tf.float32)


def over(image, brain):
    """Return mean and standard deviation of each modality over the brain."""
    return image.mean(axis=(0, 1, 2), where=brain, dtype=float), image.std(axis=(0, 1, 2), where=brain, dtype=float)


# ---- All of them ----


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_air_stays_exactly_0_and_the_brain_is_changed(change):
    image, brain = brain_image()
    changed = change(tf.constant(image), tf.constant(brain)).numpy()
    assert changed.shape == image.shape
    assert np.isfinite(changed).all()
    assert not changed[~brain[..., 0]].any()
    assert (changed != image)[brain[..., 0]].mean() > 0.7


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_air_alone_stays_as_it_is(change):
    air = tf.zeros((6, 5, 4, 4))
    np.testing.assert_array_equal(change(air, tf.zeros((6, 5, 4, 1), tf.bool)), air)


# ---- Noise ----


@pytest.mark.parametrize("std", [0.05, 0.5])
def test_noise_has_its_standard_deviation_in_each_modality(std):
    zeros, everywhere = tf.zeros((24, 24, 24, 4)), tf.ones((24, 24, 24, 1), tf.bool)
    noise = add_noise(zeros, everywhere, tf.constant(std), SEED).numpy().reshape(-1, 4)
    np.testing.assert_allclose(noise.std(axis=0), std, rtol=0.03)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.04 * std)
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.04


def test_noise_is_added_and_its_seeds_own():
    image, brain = brain_image()
    nothing = tf.zeros_like(image)
    noise, again, other = (
        add_noise(nothing, tf.constant(brain), tf.constant(0.1), seed).numpy() for seed in (SEED, SEED, SEED + 1)
    )
    noisy = add_noise(tf.constant(image), tf.constant(brain), tf.constant(0.1), SEED).numpy()
    np.testing.assert_allclose(noisy, image + noise, atol=1e-6)
    np.testing.assert_array_equal(noise, again)
    assert not (noise == other)[brain[..., 0]].any()


# ---- Blur ----


def test_blur_by_hand():
    near, far = np.exp(-1 / 2), np.exp(-4 / 2)
    blurred = blur(line(0, 3, 0), tf.ones((3, 1, 1, 1), tf.bool), tf.constant(1.0)).numpy().ravel()
    end = 3 * near / (1 + near + far)
    np.testing.assert_allclose(blurred, [end, 3 / (1 + 2 * near), end], rtol=1e-6)


def test_blur_does_not_mix_air_in_by_hand():
    near = np.exp(-1 / 2)
    brain = tf.constant([True, True, False, False])[:, tf.newaxis, tf.newaxis, tf.newaxis]
    blurred = blur(line(1, 3, 0, 0), brain, tf.constant(1.0)).numpy().ravel()
    np.testing.assert_allclose(blurred, [(1 + 3 * near) / (1 + near), (3 + near) / (1 + near), 0, 0], rtol=1e-6)


@given(sigma_vox=st.floats(0.3, 2))
@few
def test_blur_is_scipys_filter_of_the_image_over_that_of_the_brain(sigma_vox):
    image, brain = brain_image()
    filtered = partial(gaussian_filter, sigma=sigma_vox, mode="constant", truncate=20, axes=(0, 1, 2))
    blurred = blur(tf.constant(image), tf.constant(brain), tf.constant(sigma_vox)).numpy()
    inside = brain[..., 0]
    expected = filtered(image.astype(float))[inside] / filtered(brain.astype(float))[inside]
    np.testing.assert_allclose(blurred[inside], expected, atol=1e-5)


@pytest.mark.parametrize("sigma_vox", [1e-3, 0.5, 3])
def test_blur_keeps_a_constant(sigma_vox):
    _, brain = brain_image()
    constant = tf.constant(np.where(brain, [1.0, -2.0, 3.0, 4.0], 0), tf.float32)
    np.testing.assert_allclose(
        blur(constant, tf.constant(brain), tf.constant(sigma_vox, tf.float32)), constant, rtol=1e-5
    )


# ---- Contrast and brightness ----


def test_rescaling_by_hand():
    image = tf.constant([[1.0, 2.0], [-1.0, 0.5], [0.0, 0.0]])[:, tf.newaxis, tf.newaxis]
    brain = tf.constant([True, True, False])[:, tf.newaxis, tf.newaxis, tf.newaxis]
    changed = rescale(image, brain, tf.constant([1.5, 0.5]), tf.constant([0.25, -1.0])).numpy()
    np.testing.assert_array_equal(changed[:, 0, 0], [[1.75, 0.0], [-1.25, -0.75], [0.0, 0.0]])


# ---- Gamma ----


def test_bending_by_hand():
    # Brought to 0, 1/4, 1 and squared: 0, 1/16, 1 with mean 17/48.
    bent = bend(line(-1, 0, 3), tf.ones((3, 1, 1, 1), tf.bool), tf.constant([2.0])).numpy().ravel()
    level = np.array([0, 1 / 16, 1])
    old_std, std = np.sqrt(26) / 3, np.sqrt(((level - 17 / 48) ** 2).mean())
    np.testing.assert_allclose(bent, (level - 17 / 48) / std * old_std + 2 / 3, atol=1e-6)


@given(gamma=st.tuples(*[st.floats(0.5, 2)] * 4), shift=st.floats(-2, 2), factor=st.floats(0.5, 2))
@few
def test_bending_keeps_the_brains_mean_and_standard_deviation(gamma, shift, factor):
    image, brain = brain_image()
    image = np.where(brain, image * factor + shift, 0).astype(np.float32)
    bent = bend(tf.constant(image), tf.constant(brain), tf.constant(gamma)).numpy()
    np.testing.assert_allclose(over(bent, brain), over(image, brain), atol=1e-4)


@given(gamma=st.floats(0.5, 2))
@few
def test_bending_is_a_power_of_the_level_in_the_brains_range(gamma):
    image, brain = brain_image()
    bent = bend(tf.constant(image), tf.constant(brain), tf.constant([gamma] * 4)).numpy()

    def level(values):
        values = values[brain[..., 0]].astype(float)
        return (values - values.min(axis=0)) / np.ptp(values, axis=0)

    np.testing.assert_allclose(level(bent), level(image) ** gamma, atol=2e-5)


def test_bending_keeps_a_constant_and_a_modality_that_is_missing():
    _, brain = brain_image()
    constant = tf.constant(np.where(brain, [1.0, -2.0, 0.0, 4.0], 0), tf.float32)
    np.testing.assert_allclose(
        bend(constant, tf.constant(brain), tf.constant([0.7, 1.0, 1.2, 2.0])), constant, atol=1e-5
    )
