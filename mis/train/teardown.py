"""Trainings that end when they end: a stall in TensorFlow's input buffers, avoided."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops


@contextmanager
def untuned_buffers() -> Iterator[None]:
    """Switch tf.data's autotuner off in the buffer that TensorFlow puts before each CPU device of a strategy.

    The options of a data set do not reach that buffer. Its autotuner sleeps for longer and longer,
    up to a minute, and now and then misses the call to end: one of two workers ended 35 s late after
    20 epochs (TensorFlow 2.21; the thread waits in ~LogicalThreadWrapper below ~RootDataset::Iterator).
    Only a private function makes the buffer. GPUs are left as they are: there this was not tried.
    """
    name = "_create_device_dataset"
    make_buffer = getattr(multi_device_iterator_ops, name, None)
    if make_buffer is None or tf.config.list_physical_devices("GPU"):
        yield
        return

    def make_untuned(*arguments: object) -> tf.data.Dataset:
        options = tf.data.Options()
        options.autotune.enabled = False
        return make_buffer(*arguments).with_options(options)

    setattr(multi_device_iterator_ops, name, make_untuned)
    try:
        yield
    finally:
        setattr(multi_device_iterator_ops, name, make_buffer)
