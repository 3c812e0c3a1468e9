"""Where the patches of a training lie: anywhere in a case, and some of them in the tumour."""

from collections.abc import Sequence

import tensorflow as tf

from mis.data.pipeline.decode import Voxels
from mis.data.pipeline.seeds import named_seed


def patch_start(
    voxels: Voxels, size: Sequence[int], bits: Sequence[int], foreground_share: float, seed: tf.Tensor
) -> tf.Tensor:
    """Return the index of a random patch's first voxel, int32 (3,).

    With the chance `foreground_share` its centre is a voxel of one of the regions, first chosen among those
    that the case has (Isensee et al., nnU-Net, 2021: a third of the patches); else it lies anywhere. It stays
    within the box, and lies around it where the box is shorter.

    Args:
        voxels: The case.
        size: The number of the patch's voxels along (x, y, z).
        bits: The regions, by their bits.
        foreground_share: The share of patches with their centre in the tumour, 0 to 1.
        seed: int64 (2,); the same gives the same patch.
    """
    shape = tf.shape(voxels.bits)
    # Where the box is shorter than the patch there is one position, in which the box is in the middle of the patch.
    room = shape - tf.constant(size, tf.int32)
    lowest, highest = tf.where(room < 0, room // 2, 0), tf.where(room < 0, room // 2, room)
    names = ("in tumour", "region", "anywhere", "voxel")
    in_tumour_seed, region_seed, anywhere_seed, voxel_seed = (named_seed(seed, name) for name in names)
    anywhere = lowest + _integers(anywhere_seed, highest - lowest + 1)
    if foreground_share == 0:
        return anywhere

    def in_tumour() -> tf.Tensor:
        candidates = _region_voxels(voxels.bits, bits, region_seed)
        centre = tf.cast(candidates[_integers(voxel_seed, tf.shape(candidates)[0])], tf.int32)
        return tf.clip_by_value(centre - tf.constant(size, tf.int32) // 2, lowest, highest)

    wanted = tf.random.stateless_uniform((), in_tumour_seed) < foreground_share
    has_tumour = tf.reduce_any(_is_in(voxels.bits, tf.constant(sum(1 << bit for bit in bits), tf.uint8)))
    return tf.cond(wanted & has_tumour, in_tumour, lambda: anywhere)


def _region_voxels(label: tf.Tensor, bits: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return the indices of the voxels of a random region among those that the case has, int64 (voxel, 3)."""
    masks = tf.constant([1 << bit for bit in bits], tf.uint8)
    has_region = tf.stack([tf.reduce_any(_is_in(label, masks[number])) for number in range(len(bits))])
    present = tf.boolean_mask(masks, has_region)
    return tf.where(_is_in(label, present[_integers(seed, tf.shape(present)[0])]))


def _is_in(label: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return which voxels are in any of the regions whose bits are set in `mask`, bool (x, y, z)."""
    return tf.bitwise.bitwise_and(label, mask) > 0


def _integers(seed: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    """Return uniformly distributed whole numbers from 0 to below each of some bounds, int32 of the bounds' shape."""
    share = tf.random.stateless_uniform(tf.shape(below), seed, dtype=tf.float64)
    return tf.minimum(tf.cast(share * tf.cast(below, tf.float64), tf.int32), below - 1)
