"""From a record's bytes to tensors: a whole case, or a window of it."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mis.data.geometry import centred_start
from mis.data.records.index import Records


class Voxels(NamedTuple):
    """The voxels of a case in the box of its brain.

    Attributes:
        row: int32 (x, y, z): the row of `values` that a voxel has; row 0 is air.
        values: float16 (1 + brain voxel, modality): the intensities, standardised over the brain.
        bits: uint8 (x, y, z): the regions of each voxel, see `mis.data.records.preprocess.region_bits`.
    """

    row: tf.Tensor
    values: tf.Tensor
    bits: tf.Tensor


def decode(serialized: tf.Tensor, records: Records) -> Voxels:
    """Return the voxels of a case.

    Args:
        serialized: The content of its record, string ().
        records: The records that it is of, for their compression.
    """
    text, shape = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([3], tf.int64)
    stored = tf.io.parse_single_example(serialized, {"shape": shape, "mask": text, "image": text, "label": text})
    image = stored["image"]
    if records.params.compression == "zlib":
        image = tf.io.decode_compressed(image, "ZLIB")
    values = tf.reshape(tf.io.decode_raw(image, tf.float16), (-1, len(records.modalities)))
    values = tf.concat([tf.zeros((1, len(records.modalities)), tf.float16), values], axis=0)
    size = tf.reduce_prod(stored["shape"])
    inside = _unpack_bits(tf.io.decode_raw(stored["mask"], tf.uint8))[:size]
    row = tf.reshape(tf.cumsum(inside) * inside, stored["shape"])
    label = tf.io.decode_raw(tf.io.decode_compressed(stored["label"], "ZLIB"), tf.uint8)
    return Voxels(row, values, tf.reshape(label, stored["shape"]))


def _unpack_bits(octets: tf.Tensor) -> tf.Tensor:
    """Return the bits of uint8 (octet,) as int32 (8 * octet,) of 0 and 1, the highest of each first."""
    shifts = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(octets[:, tf.newaxis], shifts), tf.constant(1, tf.uint8))
    return tf.reshape(tf.cast(bits, tf.int32), (-1,))


def whole_case(voxels: Voxels, shape: Sequence[int], bits: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a whole case in the middle of a grid: a `window` that is cropped or padded evenly.

    Args:
        voxels: The case.
        shape: The grid, (x, y, z).
        bits: The regions of the target, by their bits.
    """
    start = centred_start(tf.shape(voxels.row), tf.constant(shape, tf.int32))
    return window(voxels, start, shape, bits)


def window(voxels: Voxels, start: tf.Tensor, size: Sequence[int], bits: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a window of a case, with air where it reaches beyond the box.

    Args:
        voxels: The case.
        start: int32 (3,): the index of its first voxel; negative where it begins before the box.
        size: The number of its voxels along (x, y, z).
        bits: The regions of the target, by their bits.

    Returns:
        The image, float16 (x, y, z, modality), as the record has it, and the target, uint8 (x, y, z, region) of 0 and
        1. A device gets them as they are, a third of what float32 takes, and computes in its own precision.
    """
    shape = tf.shape(voxels.row)
    first, last = tf.maximum(start, 0), tf.minimum(start + tf.constant(size, tf.int32), shape)
    padding = tf.stack([first - start, start + tf.constant(size, tf.int32) - last], axis=1)

    def cut(volume: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.pad(tf.slice(volume, first, last - first), padding), size)

    image = tf.gather(voxels.values, cut(voxels.row))
    label = cut(voxels.bits)
    regions = [tf.bitwise.bitwise_and(label, tf.constant(1 << bit, tf.uint8)) > 0 for bit in bits]
    return image, tf.cast(tf.stack(regions, axis=-1), tf.uint8)
