import numpy as np
import tensorflow as tf

from mis.data.pipeline.transforms.brightness_contrast import BrightnessContrastParameters, rescale


def test_rescaling_by_hand():
    image = tf.constant([[1.0, 2.0], [-1.0, 0.5], [0.0, 0.0]])[:, tf.newaxis, tf.newaxis]
    brain = tf.constant([True, True, False])[:, tf.newaxis, tf.newaxis, tf.newaxis]
    parameters = BrightnessContrastParameters(tf.constant([1.5, 0.5]), tf.constant([0.25, -1.0]))
    changed = rescale(image, brain, parameters).numpy()
    np.testing.assert_array_equal(changed[:, 0, 0], [[1.75, 0.0], [-1.25, -0.75], [0.0, 0.0]])
