"""Reflections: each axis is reversed with a chance; no value is changed."""

from collections.abc import Sequence

import tensorflow as tf

from mis.data.pipeline.transforms.base import Sample, Transform, apply_if
from mis.params.train import AugmentParams


def flip(volume: tf.Tensor, axes: tf.Tensor) -> tf.Tensor:
    """Return a volume with some of its axes reversed.

    Args:
        volume: (x, y, z, channel), of any type.
        axes: bool (3,): which axes are reversed.
    """
    return tf.reverse(volume, tf.where(axes)[:, 0])


def _sample(params: AugmentParams, _shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return which axes are reversed, bool (3,)."""
    return tf.random.stateless_uniform((3,), seed) < params.flip


def _apply(sample: Sample, axes: tf.Tensor) -> Sample:
    return apply_if(tf.reduce_any(axes), lambda: Sample(*(flip(volume, axes) for volume in sample)), sample)


FLIP = Transform("flip", lambda params: params.flip > 0, _sample, _apply)
