"""A Gaussian filter over the brain."""

from collections.abc import Sequence

import tensorflow as tf

from mis.data.pipeline.transforms.base import Sample, Transform, image_if, sample_uniform
from mis.params.train import AugmentParams


def blur(image: tf.Tensor, brain: tf.Tensor, sigma_vox: tf.Tensor) -> tf.Tensor:
    """Return an image filtered with a Gaussian, over the brain alone.

    A voxel becomes the weighted mean of the brain's voxels around it, so neither the air nor what is beyond the
    volume darkens the edge (Knutsson and Westin, Normalized and differential convolution, 1993).

    Args:
        image: float32 (x, y, z, modality), 0 in air.
        brain: bool (x, y, z, 1).
        sigma_vox: float32 (), above 0: the Gaussian's standard deviation.
    """
    sums = tf.concat([image, tf.cast(brain, tf.float32)], axis=-1)
    # One axis after another as a product with a matrix: 14 ms for 96 x 96 x 96 voxels of 4 modalities, where the
    # sum of shifted volumes takes 43 ms for 7 taps. Each product moves the axis behind the others, so
    # (x, y, z, channel) is (channel, x, y, z) after three.
    for length in image.shape[:3]:
        rest = sums.shape[1:]
        sums = tf.matmul(tf.reshape(sums, (length, -1)), _gaussian(length, sigma_vox), transpose_a=True)
        sums = tf.reshape(sums, (*rest, length))
    sums = tf.transpose(sums, (1, 2, 3, 0))
    return tf.where(brain, sums[..., :-1] / sums[..., -1:], 0.0)


def _gaussian(length: int, sigma_vox: tf.Tensor) -> tf.Tensor:
    """Return the weights of the voxels of a line for each voxel of it, float32 (length, length), 1 for itself."""
    voxel = tf.range(length, dtype=tf.float32)
    return tf.exp(-0.5 * tf.square((voxel - voxel[:, tf.newaxis]) / sigma_vox))


def _sample(params: AugmentParams, _shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Return the filter's standard deviation in voxels, float32 (); 0 for none."""
    return sample_uniform(seed, params.chance, 0, params.blur_vox)


def _apply(sample: Sample, sigma_vox: tf.Tensor) -> Sample:
    return image_if(sigma_vox > 0, lambda: blur(sample.image, sample.brain, sigma_vox), sample)


BLUR = Transform("blur", lambda params: params.chance > 0 and params.blur_vox > 0, _sample, _apply)
