"""Gamma: intensities raised to a power, which shifts the contrast from the dark to the bright tissue or back."""

from collections.abc import Sequence

import tensorflow as tf

from mis.data.case import MODALITIES
from mis.data.pipeline.transforms.base import Sample, Transform, image_if, sample_uniform
from mis.params.train import AugmentParams

SMALLEST = 1e-30
"""A share of the intensities that is as good as 0."""


def adjust_gamma(image: tf.Tensor, brain: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """Return an image whose intensities are raised to a power over the brain.

    Each modality is brought to 0 to 1 over the brain, raised, and given the mean and the standard deviation that
    it had in the brain, as nnU-Net's gamma augmentation does (`retain_stats`), there over the whole patch.

    Args:
        image: float32 (x, y, z, modality), 0 in air.
        brain: bool (x, y, z, 1).
        gamma: float32 (modality,), above 0: the exponent.
    """
    # The brain's voxels alone, as rows: 44 ms in place of 115 ms for 96 x 96 x 96 voxels of 4 modalities.
    indices = tf.where(brain[..., 0])
    values = tf.gather_nd(image, indices)
    low, high = tf.reduce_min(values, axis=0), tf.reduce_max(values, axis=0)
    share = tf.math.divide_no_nan(values - low, high - low)
    # TensorFlow's pow takes 6 times as long on a CPU; what is below the smallest number here is 0 within float32.
    raised = tf.exp(gamma * tf.math.log(tf.maximum(share, SMALLEST)))
    (old_mean, old_variance), (mean, variance) = (tf.nn.moments(rows, axes=[0]) for rows in (values, raised))
    # A modality that is the same everywhere stays so: the ratio is 0 where the variance is.
    ratio = tf.sqrt(tf.math.divide_no_nan(old_variance, variance))
    return tf.scatter_nd(indices, (raised - mean) * ratio + old_mean, image.shape)


def _sample(params: AugmentParams, _shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return the exponent of each modality, float32 (modality,); 1 for none."""
    return tf.exp(sample_uniform(seed, params.chance, -params.gamma, params.gamma, (len(MODALITIES),)))


def _apply(sample: Sample, gamma: tf.Tensor) -> Sample:
    happens = tf.reduce_any(gamma != 1)
    return image_if(happens, lambda: adjust_gamma(sample.image, sample.brain, gamma), sample)


GAMMA = Transform("gamma", lambda params: params.chance > 0 and params.gamma > 0, _sample, _apply)
