"""Moves of a volume: reflections and quarter turns, which are exact, and turns by any angle with a change of size."""

from collections.abc import Sequence

import tensorflow as tf


def brain_of(image: tf.Tensor) -> tf.Tensor:
    """Return where an image is not air, bool (x, y, z, 1): one modality at least is not 0."""
    return tf.reduce_any(image != 0, axis=-1, keepdims=True)


def reorient(volume: tf.Tensor, quarters: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Return a volume after quarter turns in the axial plane and then reflections, no value of it changed.

    Args:
        volume: (x, y, z, channel), of any type.
        quarters: int32 (), 0 to 3, each from x towards y as `numpy.rot90` does it; 0 or 2 where x and y
            have unlike lengths.
        flips: bool (3,): the axes that are reversed.
    """
    # A quarter turn is a transposition and a reversal; the reversals of both kinds are made in one pass.
    reversals = tf.stack([(quarters == 1) | (quarters == 2), quarters >= 2, False]) ^ flips
    if volume.shape[0] == volume.shape[1]:
        turned = volume
        volume = tf.cond(quarters % 2 == 1, lambda: tf.transpose(turned, (1, 0, 2, 3)), lambda: turned)
    return tf.cond(tf.reduce_any(reversals), lambda: tf.reverse(volume, tf.where(reversals)[:, 0]), lambda: volume)


def warp(image: tf.Tensor, target: tf.Tensor, angles_rad: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Turn and resize a case about the volume's centre, in one interpolation.

    The image is interpolated trilinearly, and kept where the nearest voxel of the source is brain: the brain's
    edge is as sharp as before, without a halo of a mixture with air. The target is the nearest voxel's. What
    comes from beyond the volume is air.

    Args:
        image: float32 (x, y, z, modality), 0 in air.
        target: float32 (x, y, z, region).
        angles_rad: float32 (3,): turns about x, then y, then z; one about z goes from x towards y.
        size: float32 (), above 0: how many times as long everything becomes.

    Returns:
        Both, of the same shapes.
    """
    shape = image.shape[:3]
    back = tf.transpose(_rotation(angles_rad)) / size
    values = tf.reshape(image, (-1, image.shape[3]))
    marks = tf.concat([target, tf.cast(brain_of(image), tf.float32)], axis=-1)
    marks = tf.reshape(marks, (-1, marks.shape[3]))

    def plane(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        places = _sources(back, shape, x)
        near = _nearest(marks, places, shape)
        return tf.where(near[:, -1:] > 0, _linear(values, places, shape), 0.0), near[:, :-1]

    # Plane after plane, what is computed stays in the cache and takes the memory of one plane: 0.31 s in place of
    # 0.40 s for 144 x 176 x 144 voxels of 4 modalities on one core.
    kinds = (
        tf.TensorSpec([shape[1] * shape[2], channels], tf.float32) for channels in (image.shape[3], target.shape[3])
    )
    planes = tf.map_fn(plane, tf.range(shape[0]), fn_output_signature=tuple(kinds))
    return tf.reshape(planes[0], image.shape), tf.reshape(planes[1], target.shape)


def _rotation(angles_rad: tf.Tensor) -> tf.Tensor:
    """Return the matrix, float32 (3, 3), of right-handed turns about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = tf.unstack(tf.cos(angles_rad)), tf.unstack(tf.sin(angles_rad))
    about_x = tf.stack([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    about_y = tf.stack([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_z = tf.stack([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    return about_z @ about_y @ about_x


def _sources(back: tf.Tensor, shape: Sequence[int], x: tf.Tensor) -> list[tf.Tensor]:
    """Return where the voxels of plane `x` come from: in each axis float32 (y * z,), in voxels."""
    middle = [(length - 1) / 2 for length in shape]
    dx = tf.cast(x, tf.float32) - middle[0]
    dy, dz = (tf.range(length, dtype=tf.float32) - centre for length, centre in zip(shape[1:], middle[1:], strict=True))
    return [
        tf.reshape((centre + row[0] * dx + row[1] * dy)[:, tf.newaxis] + row[2] * dz, (-1,))
        for row, centre in zip(tf.unstack(back), middle, strict=True)
    ]


def _strides(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return how many rows further the next voxel of each axis stands."""
    return shape[1] * shape[2], shape[2], 1


def _nearest(rows: tf.Tensor, places: Sequence[tf.Tensor], shape: Sequence[int]) -> tf.Tensor:
    """Return the row of the voxel nearest to each place, 0 where the place is outside."""
    row, inside = tf.constant(0), tf.constant(True)
    for place, length, stride in zip(places, shape, _strides(shape), strict=True):
        voxel = tf.cast(tf.floor(place + 0.5), tf.int32)
        row, inside = row + voxel * stride, inside & (voxel >= 0) & (voxel < length)
    return tf.where(inside[:, tf.newaxis], tf.gather(rows, tf.where(inside, row, 0)), 0.0)


def _linear(rows: tf.Tensor, places: Sequence[tf.Tensor], shape: Sequence[int]) -> tf.Tensor:
    """Return the rows interpolated at each place; beyond the outermost voxels these go on."""
    steps, shares = [], []
    for place, length, stride in zip(places, shape, _strides(shape), strict=True):
        within = tf.clip_by_value(place, 0.0, length - 1.0)
        low = tf.floor(within)
        shares.append((within - low)[:, tf.newaxis])
        steps.append([tf.cast(voxel, tf.int32) * stride for voxel in (low, tf.minimum(low + 1, length - 1.0))])

    def between(axis: int, row: tf.Tensor) -> tf.Tensor:
        if axis == len(steps):
            return tf.gather(rows, row)
        low, high = (between(axis + 1, row + step) for step in steps[axis])
        return low + (high - low) * shares[axis]

    return between(0, tf.constant(0))
