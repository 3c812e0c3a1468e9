"""The one place that chooses how a training is spread over devices."""

import tensorflow as tf

from mis.train.devices import Devices


def make_strategy(devices: Devices) -> tf.distribute.Strategy:
    """Return the strategy for some devices: the default one for one, mirrored variables for several."""
    if len(devices.names) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(list(devices.names))
