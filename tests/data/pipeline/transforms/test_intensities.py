"""What all transforms of the intensities have in common."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from mis.data.pipeline.transforms.blur import blur
from mis.data.pipeline.transforms.brightness_contrast import BrightnessContrastParameters, rescale
from mis.data.pipeline.transforms.gamma import adjust_gamma
from mis.data.pipeline.transforms.noise import NoiseParameters, add_noise
from tests.data.pipeline.transforms.brains import brain_image

NOISE = NoiseParameters(tf.constant(0.5), tf.constant([3, 4], tf.int64))
CONTRAST = BrightnessContrastParameters(tf.constant([0.5, 1.0, 1.5, 2.0]), tf.constant([0.0, 1.0, -1.0, 2.0]))
CHANGES = {
    "noise": partial(add_noise, parameters=NOISE),
    "blur": partial(blur, sigma_vox=tf.constant(1.0)),
    "brightness_contrast": partial(rescale, parameters=CONTRAST),
    "gamma": partial(adjust_gamma, gamma=tf.constant([0.7, 0.9, 1.1, 1.5])),
}


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
