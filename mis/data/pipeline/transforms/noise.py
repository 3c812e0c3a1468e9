"""Gaussian noise over the brain."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mis.data.pipeline.seeds import named_seed
from mis.data.pipeline.transforms.base import Sample, Transform, image_if, sample_uniform
from mis.params.train import AugmentParams


class NoiseParameters(NamedTuple):
    """A noise.

    Attributes:
        std: float32 (): its standard deviation, in those of the brain; 0 for none.
        seed: int64 (2,): what it is made from.
    """

    std: tf.Tensor
    seed: tf.Tensor


def add_noise(image: tf.Tensor, brain: tf.Tensor, parameters: NoiseParameters) -> tf.Tensor:
    """Return an image with noise in the brain.

    Args:
        image: float32 (x, y, z, modality), 0 in air.
        brain: bool (x, y, z, 1).
        parameters: The noise; the same gives the same.
    """
    noise = tf.random.stateless_normal(image.shape, parameters.seed)
    return tf.where(brain, image + parameters.std * noise, 0.0)


def _sample(params: AugmentParams, _shape: Sequence[int], seed: tf.Tensor) -> NoiseParameters:
    std = sample_uniform(named_seed(seed, "std"), params.chance, 0, params.noise)
    return NoiseParameters(std, named_seed(seed, "noise"))


def _apply(sample: Sample, parameters: NoiseParameters) -> Sample:
    return image_if(parameters.std > 0, lambda: add_noise(sample.image, sample.brain, parameters), sample)


NOISE = Transform("noise", lambda params: params.chance > 0 and params.noise > 0, _sample, _apply)
