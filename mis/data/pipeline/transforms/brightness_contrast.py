"""Contrast and brightness: each modality multiplied by a factor, and a shift added."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mis.data.case import MODALITIES
from mis.data.pipeline.seeds import named_seed
from mis.data.pipeline.transforms.base import Sample, Transform, image_if, sample_uniform
from mis.params.train import AugmentParams


class BrightnessContrastParameters(NamedTuple):
    """A change of contrast and brightness.

    Attributes:
        factor: float32 (modality,): what the intensities are multiplied by; 1 leaves them.
        shift: float32 (modality,): what is added to them then, in standard deviations of the brain; 0 leaves them.
    """

    factor: tf.Tensor
    shift: tf.Tensor


def rescale(image: tf.Tensor, brain: tf.Tensor, parameters: BrightnessContrastParameters) -> tf.Tensor:
    """Return an image multiplied by a factor and then shifted, over the brain alone.

    Args:
        image: float32 (x, y, z, modality), 0 in air.
        brain: bool (x, y, z, 1).
        parameters: The factor and the shift of each modality.
    """
    return tf.where(brain, image * parameters.factor + parameters.shift, 0.0)


def _sample(params: AugmentParams, _shape: Sequence[int], seed: tf.Tensor) -> BrightnessContrastParameters:
    """Return a factor for each modality with a chance, and independently a shift with the same chance."""

    def sample(name: str, strength: float) -> tf.Tensor:
        return sample_uniform(named_seed(seed, name), params.chance, -strength, strength, (len(MODALITIES),))

    factor, shift = sample("contrast", params.intensity_scale), sample("brightness", params.intensity_shift)
    return BrightnessContrastParameters(1 + factor, shift)


def _apply(sample: Sample, parameters: BrightnessContrastParameters) -> Sample:
    happens = tf.reduce_any((parameters.factor != 1) | (parameters.shift != 0))
    return image_if(happens, lambda: rescale(sample.image, sample.brain, parameters), sample)


def _is_active(params: AugmentParams) -> bool:
    return params.chance > 0 and (params.intensity_scale > 0 or params.intensity_shift > 0)


BRIGHTNESS_CONTRAST = Transform("brightness_contrast", _is_active, _sample, _apply)
