"""The one place that chooses how a training is spread over devices."""

from functools import cache

import tensorflow as tf

from mis.train.devices import Devices


@cache
def make_strategy(devices: Devices) -> tf.distribute.Strategy:
    """Return the strategy for some devices: the default one for one, mirrored variables for several.

    A process keeps it from training to training: a second MirroredStrategy numbers its collective
    operations from the start again, and TensorFlow takes them for those of the first ("shape
    mismatch in the collective instance").
    """
    if len(devices.names) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(list(devices.names))
