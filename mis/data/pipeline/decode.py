"""From a record's bytes to tensors: the whole of a case, or a part of it."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mis.data.records.index import Records


class Voxels(NamedTuple):
    """A case in its box.

    Attributes:
        row: int32 (x, y, z): which row of `values` is a voxel's; row 0 is the air.
        values: float16 (1 + brain voxel, modality), standardised.
        bits: uint8 (x, y, z): the regions, see `mis.data.records.preprocess.region_bits`.
    """

    row: tf.Tensor
    values: tf.Tensor
    bits: tf.Tensor


def decode(serialized: tf.Tensor, records: Records) -> Voxels:
    """Return what a record holds."""
    text, shape = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([3], tf.int64)
    stored = tf.io.parse_single_example(serialized, {"shape": shape, "mask": text, "image": text, "label": text})
    image = stored["image"]
    if records.params.compression == "zlib":
        image = tf.io.decode_compressed(image, "ZLIB")
    values = tf.reshape(tf.io.decode_raw(image, tf.float16), (-1, len(records.modalities)))
    values = tf.concat([tf.zeros((1, len(records.modalities)), tf.float16), values], axis=0)
    size = tf.reduce_prod(stored["shape"])
    inside = _unpacked(tf.io.decode_raw(stored["mask"], tf.uint8))[:size]
    row = tf.reshape(tf.cumsum(inside) * inside, stored["shape"])
    label = tf.io.decode_raw(tf.io.decode_compressed(stored["label"], "ZLIB"), tf.uint8)
    return Voxels(row, values, tf.reshape(label, stored["shape"]))


def _unpacked(octets: tf.Tensor) -> tf.Tensor:
    """Return the bits of uint8 (octet,) as int32 (8 * octet,) of 0 and 1, the highest of each first."""
    places = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(octets[:, tf.newaxis], places), tf.constant(1, tf.uint8))
    return tf.reshape(tf.cast(bits, tf.int32), (-1,))


def whole_start(shape: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Return where a window begins that has all of a box in its middle: `mis.data.geometry.fit_window` for tensors."""
    more = tf.constant(size, tf.int32) - tf.cast(shape, tf.int32)
    return tf.where(more >= 0, -(more // 2), (1 - more) // 2)


def window(voxels: Voxels, start: tf.Tensor, size: Sequence[int], bits: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a part of a case, air where it reaches beyond the box.

    Args:
        voxels: The case.
        start: int32 (3,): its first voxel; negative where it begins before the box.
        size: How many voxels it has.
        bits: The regions that are wanted, by their bits.

    Returns:
        float32 (x, y, z, modality), and float32 (x, y, z, region) of 0 and 1.
    """
    shape = tf.shape(voxels.row)
    first, last = tf.maximum(start, 0), tf.minimum(start + tf.constant(size, tf.int32), shape)
    padding = tf.stack([first - start, start + tf.constant(size, tf.int32) - last], axis=1)

    def part(volume: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.pad(tf.slice(volume, first, last - first), padding), size)

    image = tf.cast(tf.gather(voxels.values, part(voxels.row)), tf.float32)
    label = part(voxels.bits)
    one = tf.constant(1, tf.uint8)
    regions = [tf.bitwise.bitwise_and(tf.bitwise.right_shift(label, tf.constant(bit, tf.uint8)), one) for bit in bits]
    return image, tf.cast(tf.stack(regions, axis=-1), tf.float32)
