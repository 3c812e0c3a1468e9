"""Quarter turns in the axial plane; no value is changed."""

from collections.abc import Sequence

import tensorflow as tf

from mis.data.pipeline.transforms.base import Sample, Transform, apply_if
from mis.params.train import AugmentParams


def rotate90(volume: tf.Tensor, quarters: tf.Tensor) -> tf.Tensor:
    """Return a volume after quarter turns from x towards y, as `numpy.rot90` makes them.

    Args:
        volume: (x, y, z, channel), of any type.
        quarters: int32 (), 0 to 3; 0 or 2 where x and y have unlike lengths.
    """
    turned = volume
    if volume.shape[0] == volume.shape[1]:
        turned = tf.cond(quarters % 2 == 1, lambda: tf.transpose(volume, (1, 0, 2, 3)), lambda: volume)
    # A quarter turn is a transposition and a reversal.
    reversed_axes = tf.stack([(quarters == 1) | (quarters == 2), quarters >= 2])
    return tf.reverse(turned, tf.where(reversed_axes)[:, 0])


def _sample(params: AugmentParams, shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return with a chance 1, 2 or 3 quarter turns, else 0, int32 (); 2 alone where others do not fit the volume."""
    happens, which = tf.unstack(tf.random.stateless_uniform((2,), seed))
    quarters = 1 + tf.minimum(tf.cast(3 * which, tf.int32), 2) if shape[0] == shape[1] else 2
    return tf.where(happens < params.rotate90, quarters, 0)


def _apply(sample: Sample, quarters: tf.Tensor) -> Sample:
    return apply_if(quarters > 0, lambda: Sample(*(rotate90(volume, quarters) for volume in sample)), sample)


ROTATE90 = Transform("rotate90", lambda params: params.rotate90 > 0, _sample, _apply)
