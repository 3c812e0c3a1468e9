import numpy as np
import pytest
import tensorflow as tf

from mis.data.pipeline.transforms.noise import NoiseParameters, add_noise
from tests.data.pipeline.transforms.brains import brain_image

SEED = tf.constant([3, 4], tf.int64)


def parameters(std, seed=SEED):
    return NoiseParameters(tf.constant(std), seed)


@pytest.mark.parametrize("std", [0.05, 0.5])
def test_noise_has_its_standard_deviation_in_each_modality(std):
    zeros, everywhere = tf.zeros((24, 24, 24, 4)), tf.ones((24, 24, 24, 1), tf.bool)
    noise = add_noise(zeros, everywhere, parameters(std)).numpy().reshape(-1, 4)
    np.testing.assert_allclose(noise.std(axis=0), std, rtol=0.03)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.04 * std)
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.04


def test_noise_is_added_and_depends_on_its_seed():
    image, brain = brain_image()
    nothing = tf.zeros_like(image)
    noise, again, other = (
        add_noise(nothing, tf.constant(brain), parameters(0.1, seed)).numpy() for seed in (SEED, SEED, SEED + 1)
    )
    noisy = add_noise(tf.constant(image), tf.constant(brain), parameters(0.1)).numpy()
    np.testing.assert_allclose(noisy, image + noise, atol=1e-6)
    np.testing.assert_array_equal(noise, again)
    assert not (noise == other)[brain[..., 0]].any()
