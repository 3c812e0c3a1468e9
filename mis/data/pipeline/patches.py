"""Where in a case a training looks: random parts of it, some of them in the tumour."""

from collections.abc import Sequence

import tensorflow as tf

from mis.data.pipeline.decode import Voxels


def patch_start(
    voxels: Voxels, size: Sequence[int], bits: Sequence[int], foreground_share: float, seed: tf.Tensor
) -> tf.Tensor:
    """Return where a random patch of a case begins, int32 (3,).

    With the chance `foreground_share` its centre is a voxel of one of the regions, first chosen among those
    that the case has (Isensee et al., nnU-Net, 2021: a third of the patches); else it lies anywhere. It stays
    within the box, and lies around it where the box is shorter.

    Args:
        voxels: The case.
        size: Voxels of the patch.
        bits: The regions, by their bits.
        foreground_share: 0 to 1.
        seed: int64 (2,); the same gives the same patch.
    """
    shape = tf.shape(voxels.bits)
    # Where the box is shorter than the patch there is one place, the middle.
    room = shape - tf.constant(size, tf.int32)
    lowest, highest = tf.where(room < 0, room // 2, 0), tf.where(room < 0, room // 2, room)
    in_tumour, which, anywhere, voxel = (tf.random.experimental.stateless_fold_in(seed, part) for part in range(4))
    free = lowest + _integers(anywhere, highest - lowest + 1)
    if foreground_share == 0:
        return free

    def centred() -> tf.Tensor:
        there = _region(voxels.bits, bits, which)
        centre = tf.cast(there[_integers(voxel, tf.shape(there)[0])], tf.int32)
        return tf.clip_by_value(centre - tf.constant(size, tf.int32) // 2, lowest, highest)

    wanted = tf.random.stateless_uniform((), in_tumour) < foreground_share
    has_tumour = tf.reduce_any(_of(voxels.bits, tf.constant(sum(1 << bit for bit in bits), tf.uint8)))
    return tf.cond(wanted & has_tumour, centred, lambda: free)


def _region(label: tf.Tensor, bits: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return the voxels, int64 (voxel, 3), of one of the regions that are there."""
    masks = tf.constant([1 << bit for bit in bits], tf.uint8)
    there = tf.stack([tf.reduce_any(_of(label, masks[number])) for number in range(len(bits))])
    present = tf.boolean_mask(masks, there)
    return tf.where(_of(label, present[_integers(seed, tf.shape(present)[0])]))


def _of(label: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_and(label, mask) > 0


def _integers(seed: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    """Return whole numbers from 0 to below a bound, or below several, each uniformly distributed."""
    share = tf.random.stateless_uniform(tf.shape(below), seed, dtype=tf.float64)
    return tf.minimum(tf.cast(share * tf.cast(below, tf.float64), tf.int32), below - 1)
