import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.data.pipeline.transforms.gamma import adjust_gamma
from tests.data.pipeline.transforms.brains import brain_image, line

few = settings(max_examples=15, deadline=None)


def over(image, brain):
    """Return mean and standard deviation of each modality over the brain."""
    return image.mean(axis=(0, 1, 2), where=brain, dtype=float), image.std(axis=(0, 1, 2), where=brain, dtype=float)


def test_gamma_by_hand():
    # Brought to 0, 1/4, 1 and squared: 0, 1/16, 1 with mean 17/48.
    changed = adjust_gamma(line(-1, 0, 3), tf.ones((3, 1, 1, 1), tf.bool), tf.constant([2.0])).numpy().ravel()
    level = np.array([0, 1 / 16, 1])
    old_std, std = np.sqrt(26) / 3, np.sqrt(((level - 17 / 48) ** 2).mean())
    np.testing.assert_allclose(changed, (level - 17 / 48) / std * old_std + 2 / 3, atol=1e-6)


@given(gamma=st.tuples(*[st.floats(0.5, 2)] * 4), shift=st.floats(-2, 2), factor=st.floats(0.5, 2))
@few
def test_gamma_keeps_the_brains_mean_and_standard_deviation(gamma, shift, factor):
    image, brain = brain_image()
    image = np.where(brain, image * factor + shift, 0).astype(np.float32)
    changed = adjust_gamma(tf.constant(image), tf.constant(brain), tf.constant(gamma)).numpy()
    np.testing.assert_allclose(over(changed, brain), over(image, brain), atol=1e-4)


@given(gamma=st.floats(0.5, 2))
@few
def test_gamma_is_a_power_of_the_level_in_the_brains_range(gamma):
    image, brain = brain_image()
    changed = adjust_gamma(tf.constant(image), tf.constant(brain), tf.constant([gamma] * 4)).numpy()

    def level(values):
        values = values[brain[..., 0]].astype(float)
        return (values - values.min(axis=0)) / np.ptp(values, axis=0)

    np.testing.assert_allclose(level(changed), level(image) ** gamma, atol=2e-5)


def test_gamma_keeps_a_constant_and_a_modality_that_is_missing():
    _, brain = brain_image()
    constant = tf.constant(np.where(brain, [1.0, -2.0, 0.0, 4.0], 0), tf.float32)
    np.testing.assert_allclose(
        adjust_gamma(constant, tf.constant(brain), tf.constant([0.7, 1.0, 1.2, 2.0])), constant, atol=1e-5
    )
