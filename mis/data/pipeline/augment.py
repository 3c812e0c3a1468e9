"""The augmentation: the transforms in their order, sampled from a seed and applied to a case.

A new transform is a file in `mis.data.pipeline.transforms`, an entry of `TRANSFORMS` and its parameters in
`mis.params.train.AugmentParams`. The seed of each is folded from its name, so another one reseeds none of the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from mis.data.pipeline.seeds import named_seed
from mis.data.pipeline.transforms.affine import AFFINE
from mis.data.pipeline.transforms.base import Sample, Transform
from mis.data.pipeline.transforms.blur import BLUR
from mis.data.pipeline.transforms.brightness_contrast import BRIGHTNESS_CONTRAST
from mis.data.pipeline.transforms.flip import FLIP
from mis.data.pipeline.transforms.gamma import GAMMA
from mis.data.pipeline.transforms.noise import NOISE
from mis.data.pipeline.transforms.rotate90 import ROTATE90
from mis.params.train import AugmentParams

TRANSFORMS: tuple[Transform, ...] = (ROTATE90, FLIP, AFFINE, NOISE, BLUR, BRIGHTNESS_CONTRAST, GAMMA)
"""All transforms in the order in which they are applied: nnU-Net's, but for its reflections at the end, which are exact
and change nothing of the others."""

Parameters = Mapping[str, Any]
"""The parameters that were sampled for one sight of a case, by the name of the transform."""


def is_active(params: AugmentParams) -> bool:
    """Return whether any transform can change a case."""
    return any(transform.is_active(params) for transform in TRANSFORMS)


def sample_parameters(
    params: AugmentParams, shape: Sequence[int], seed: tf.Tensor, transforms: Sequence[Transform] = TRANSFORMS
) -> Parameters:
    """Sample the parameters of each transform that is active.

    Those of a transform depend on the seed, its name, and its strength and chance alone.

    Args:
        params: Chances and strengths.
        shape: The lengths of the case's axes, (x, y, z).
        seed: int64 (2,); the same gives the same parameters.
        transforms: The transforms that may be applied.
    """
    return {
        transform.name: transform.sample(params, shape, named_seed(seed, transform.name))
        for transform in transforms
        if transform.is_active(params)
    }


def augment(
    image: tf.Tensor, target: tf.Tensor, parameters: Parameters, transforms: Sequence[Transform] = TRANSFORMS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply transforms, in their order.

    Args:
        image: float32 (x, y, z, modality), standardised over the brain and 0 in air.
        target: float32 (x, y, z, region) of 0 and 1.
        parameters: The parameters of each transform that is applied.
        transforms: The transforms that may be applied.

    Returns:
        Image and target, of the same shapes; air is 0, and the target 0 and 1.
    """
    sample = Sample.of(image, target)
    for transform in transforms:
        if transform.name in parameters:
            sample = transform.apply(sample, parameters[transform.name])
    return tf.ensure_shape(sample.image, image.shape), tf.ensure_shape(sample.target, target.shape)
