"""What a transform is, and what several of them sample in the same way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from mis.params.train import AugmentParams


class Sample(NamedTuple):
    """A case, or a patch of it, as a training sees it.

    Attributes:
        image: float32 (x, y, z, modality), standardised over the brain and 0 in air.
        target: float32 (x, y, z, region) of 0 and 1.
        brain: bool (x, y, z, 1): what is not air. It is kept beside the image, in which a transform of the
            intensities may bring a voxel of the brain to 0.
    """

    image: tf.Tensor
    target: tf.Tensor
    brain: tf.Tensor

    @classmethod
    def of(cls, image: tf.Tensor, target: tf.Tensor) -> "Sample":
        """Return the sample of an image and a target: the brain is where one modality at least is not 0."""
        return cls(image, target, tf.reduce_any(image != 0, axis=-1, keepdims=True))


@dataclass(frozen=True)
class Transform:
    """A random change of a sample: its parameters are sampled apart from being applied, as in TorchIO.

    Attributes:
        name: The transform's name, from which the seed of its parameters is folded.
        is_active: Returns whether it can change anything at these strengths and chances.
        sample: Returns the parameters for one sight of a case, a tensor or a NamedTuple of tensors, from the
            strengths, the shape (x, y, z) and a seed, int64 (2,); the same seed gives the same parameters.
        apply: Returns a sample, of the same shapes and types, changed by the parameters; unchanged, bit for bit, where
            the parameters say that nothing happens.
    """

    name: str
    is_active: Callable[[AugmentParams], bool]
    sample: Callable[[AugmentParams, Sequence[int], tf.Tensor], Any]
    apply: Callable[[Sample, Any], Sample]


def sample_uniform(seed: tf.Tensor, chance: float, low: float, high: float, shape: Sequence[int] = ()) -> tf.Tensor:
    """Return numbers that are 0, but with a chance all of them uniformly distributed.

    Args:
        seed: int64 (2,).
        chance: The chance that they are not 0, from 0 to 1.
        low: Lower bound.
        high: Upper bound.
        shape: The shape of the result.

    Returns:
        float32 of this shape.
    """
    happens_seed, value_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    values = tf.random.stateless_uniform(shape, value_seed, minval=low, maxval=high)
    return tf.where(tf.random.stateless_uniform((), happens_seed) < chance, values, 0.0)


def apply_if(happens: tf.Tensor, change: Callable[[], Sample], sample: Sample) -> Sample:
    """Return the changed sample if something happens, bool (), else the sample as it is, computing nothing."""
    result: Sample = tf.cond(happens, change, lambda: sample)
    return result


def image_if(happens: tf.Tensor, change: Callable[[], tf.Tensor], sample: Sample) -> Sample:
    """Return the sample with a changed image if something happens, bool (), else as it is."""
    return sample._replace(image=tf.cond(happens, change, lambda: sample.image))
