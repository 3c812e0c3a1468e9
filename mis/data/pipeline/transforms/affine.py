"""Rotation by any angle and change of size, about the volume's centre, in one interpolation."""

from collections.abc import Sequence
from math import pi
from typing import NamedTuple

import tensorflow as tf

from mis.data.pipeline.seeds import named_seed
from mis.data.pipeline.transforms.base import Sample, Transform, apply_if, sample_uniform
from mis.params.train import AugmentParams


class AffineParameters(NamedTuple):
    """A rotation and a change of size.

    Attributes:
        angles_rad: float32 (3,): turns about x, then y, then z; one about z goes from x towards y.
        size: float32 (), above 0: how many times as long everything becomes; 1 leaves it.
    """

    angles_rad: tf.Tensor
    size: tf.Tensor


def warp(sample: Sample, parameters: AffineParameters) -> Sample:
    """Rotate and resize a sample about the volume's centre.

    The image is interpolated trilinearly, and kept where the nearest voxel of the source is brain: the brain's
    edge is as sharp as before, without a halo of a mixture with air. The target and the brain are the nearest voxel's.
    What comes from beyond the volume is air.

    Args:
        sample: The sample.
        parameters: The rotation and the change of size.

    Returns:
        The sample, of the same shapes.
    """
    image, target, brain = sample
    shape = image.shape[:3]
    back = tf.transpose(_rotation(parameters.angles_rad)) / parameters.size
    values = tf.reshape(image, (-1, image.shape[3]))
    marks = tf.concat([target, tf.cast(brain, tf.float32)], axis=-1)
    marks = tf.reshape(marks, (-1, marks.shape[3]))

    def plane(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sources = _sources(back, shape, x)
        nearest = _nearest(marks, sources, shape)
        return tf.where(nearest[:, -1:] > 0, _linear(values, sources, shape), 0.0), nearest

    # Plane after plane, what is computed stays in the cache and takes the memory of one plane: 0.31 s in place of
    # 0.40 s for 144 x 176 x 144 voxels of 4 modalities on one core.
    kinds = tuple(
        tf.TensorSpec([shape[1] * shape[2], channels], tf.float32) for channels in (image.shape[3], marks.shape[1])
    )
    warped, marked = tf.map_fn(plane, tf.range(shape[0]), fn_output_signature=kinds)
    marked = tf.reshape(marked, (*shape, marks.shape[1]))
    return Sample(tf.reshape(warped, image.shape), marked[..., :-1], marked[..., -1:] > 0)


def _rotation(angles_rad: tf.Tensor) -> tf.Tensor:
    """Return the matrix, float32 (3, 3), of right-handed turns about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = tf.unstack(tf.cos(angles_rad)), tf.unstack(tf.sin(angles_rad))
    about_x = tf.stack([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    about_y = tf.stack([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_z = tf.stack([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    return about_z @ about_y @ about_x


def _sources(back: tf.Tensor, shape: Sequence[int], x: tf.Tensor) -> list[tf.Tensor]:
    """Return the positions that the voxels of plane `x` come from: along each axis float32 (y * z,), in voxels."""
    middle = [(length - 1) / 2 for length in shape]
    dx = tf.cast(x, tf.float32) - middle[0]
    dy, dz = (tf.range(length, dtype=tf.float32) - centre for length, centre in zip(shape[1:], middle[1:], strict=True))
    return [
        tf.reshape((centre + row[0] * dx + row[1] * dy)[:, tf.newaxis] + row[2] * dz, (-1,))
        for row, centre in zip(tf.unstack(back), middle, strict=True)
    ]


def _strides(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return by how many rows the next voxel along each axis is further."""
    return shape[1] * shape[2], shape[2], 1


def _nearest(rows: tf.Tensor, positions: Sequence[tf.Tensor], shape: Sequence[int]) -> tf.Tensor:
    """Return the row of the voxel nearest to each position, 0 where the position is outside the volume."""
    row, inside = tf.constant(0), tf.constant(True)
    for position, length, stride in zip(positions, shape, _strides(shape), strict=True):
        voxel = tf.cast(tf.floor(position + 0.5), tf.int32)
        row, inside = row + voxel * stride, inside & (voxel >= 0) & (voxel < length)
    return tf.where(inside[:, tf.newaxis], tf.gather(rows, tf.where(inside, row, 0)), 0.0)


def _linear(rows: tf.Tensor, positions: Sequence[tf.Tensor], shape: Sequence[int]) -> tf.Tensor:
    """Return the rows interpolated at each position; beyond the outermost voxels their values are continued."""
    steps, shares = [], []
    for position, length, stride in zip(positions, shape, _strides(shape), strict=True):
        within = tf.clip_by_value(position, 0.0, length - 1.0)
        low = tf.floor(within)
        shares.append((within - low)[:, tf.newaxis])
        steps.append([tf.cast(voxel, tf.int32) * stride for voxel in (low, tf.minimum(low + 1, length - 1.0))])

    def between(axis: int, row: tf.Tensor) -> tf.Tensor:
        if axis == len(steps):
            return tf.gather(rows, row)
        low, high = (between(axis + 1, row + step) for step in steps[axis])
        return low + (high - low) * shares[axis]

    return between(0, tf.constant(0))


def _sample(params: AugmentParams, _shape: Sequence[int], seed: tf.Tensor) -> AffineParameters:
    """Return a rotation about each axis with a chance, and independently a change of size with the same chance."""
    largest_rad = params.rotate_deg * pi / 180
    angles_rad = sample_uniform(named_seed(seed, "rotate"), params.chance, -largest_rad, largest_rad, (3,))
    change = sample_uniform(named_seed(seed, "scale"), params.chance, -params.scale, params.scale)
    return AffineParameters(angles_rad, 1 + change)


def _apply(sample: Sample, parameters: AffineParameters) -> Sample:
    happens = tf.reduce_any(parameters.angles_rad != 0) | (parameters.size != 1)
    return apply_if(happens, lambda: warp(sample, parameters), sample)


def _is_active(params: AugmentParams) -> bool:
    return params.chance > 0 and (params.rotate_deg > 0 or params.scale > 0)


AFFINE = Transform("affine", _is_active, _sample, _apply)
