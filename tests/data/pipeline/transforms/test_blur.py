from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from mis.data.pipeline.transforms.blur import blur
from tests.data.pipeline.transforms.brains import brain_image, line

few = settings(max_examples=15, deadline=None)


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
