"""TensorFlow's strategy for the devices of one process."""

from functools import cache
from typing import Literal

import tensorflow as tf

from mis.train.devices import Devices


@cache
def make_strategy(devices: Devices, kind: Literal["auto", "none", "mirrored"] = "auto") -> tf.distribute.Strategy:
    """Return the strategy for some devices of one process.

    A process keeps it from training to training: a second MirroredStrategy numbers its collective
    operations from the start again, and TensorFlow takes them for those of the first ("shape
    mismatch in the collective instance").

    On a single GPU it is the strategy that has the next batches copied to it while it computes; TensorFlow's default
    strategy has each step wait for its copy.

    Args:
        devices: The devices of this process.
        kind: `auto` mirrors variables where there are several devices; `mirrored` on a single one too.
    """
    if len(devices.names) == 1 and kind != "mirrored":
        (name,) = devices.names
        return tf.distribute.OneDeviceStrategy(name) if name.startswith("GPU") else tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(list(devices.names))
