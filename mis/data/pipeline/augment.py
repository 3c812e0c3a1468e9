"""What becomes of a case each time that it is trained on: sampled from a seed, and applied.

Moves come first, then noise, blur, contrast and brightness, gamma: nnU-Net's order, but for its reflections at the
end, which are exact and change nothing of the others. What is not sampled is not computed.
"""

from collections.abc import Callable, Sequence
from math import pi
from typing import NamedTuple

import tensorflow as tf

from mis.data.case import MODALITIES
from mis.data.pipeline.intensity import add_noise, bend, blur, rescale
from mis.data.pipeline.spatial import brain_of, reorient, warp
from mis.params.train import AugmentParams


class Change(NamedTuple):
    """What happens to a case.

    Attributes:
        quarters: int32 (), 0 to 3: quarter turns in the axial plane, from x towards y.
        flips: bool (3,): axes that are reversed, after the turns.
        angles_rad: float32 (3,): turns about x, then y, then z.
        size: float32 (): how many times as long everything becomes; 1 leaves it.
        noise: float32 (): standard deviation of the noise; 0: none.
        noise_seed: int64 (2,): what the noise is made from.
        blur_vox: float32 (): standard deviation of the Gaussian filter; 0: none.
        factor: float32 (modality,): what the intensities are multiplied by.
        shift: float32 (modality,): what is added to them then.
        gamma: float32 (modality,): the exponent.
    """

    quarters: tf.Tensor
    flips: tf.Tensor
    angles_rad: tf.Tensor
    size: tf.Tensor
    noise: tf.Tensor
    noise_seed: tf.Tensor
    blur_vox: tf.Tensor
    factor: tf.Tensor
    shift: tf.Tensor
    gamma: tf.Tensor


def is_any(params: AugmentParams) -> bool:
    """Return whether anything can happen: a change has both a chance and a strength."""
    strengths = params.model_dump(exclude={"flip", "rotate90", "chance"}).values()
    return params.flip > 0 or params.rotate90 > 0 or (params.chance > 0 and any(strengths))


def sample_change(params: AugmentParams, shape: Sequence[int], seed: tf.Tensor) -> Change:
    """Return what happens to a case this time.

    Each part depends on the seed and its own strength and chance alone: one that is switched on leaves what
    is sampled of the others as it was.

    Args:
        params: Chances and strengths.
        shape: Voxels of the case, (x, y, z).
        seed: int64 (2,); the same gives the same change.
    """
    parts = iter(range(len(Change._fields)))
    modality = (len(MODALITIES),)

    def own() -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(seed, next(parts))

    def symmetric(strength: float, shape: Sequence[int] = ()) -> tf.Tensor:
        return _drawn(own(), params.chance, -strength, strength, shape)

    return Change(
        quarters=_quarters(own(), params.rotate90, any_number=shape[0] == shape[1]),
        flips=tf.random.stateless_uniform((3,), own()) < params.flip,
        angles_rad=symmetric(params.rotate_deg * pi / 180, (3,)),
        size=1 + symmetric(params.scale),
        noise=_drawn(own(), params.chance, 0, params.noise),
        noise_seed=own(),
        blur_vox=_drawn(own(), params.chance, 0, params.blur_vox),
        factor=1 + symmetric(params.intensity_scale, modality),
        shift=symmetric(params.intensity_shift, modality),
        gamma=tf.exp(symmetric(params.gamma, modality)),
    )


def _quarters(seed: tf.Tensor, chance: float, *, any_number: bool) -> tf.Tensor:
    """Return 1, 2 or 3 quarter turns with a chance, else 0; 2 alone where others would not fit the volume."""
    happens, which = tf.unstack(tf.random.stateless_uniform((2,), seed))
    number = 1 + tf.minimum(tf.cast(3 * which, tf.int32), 2) if any_number else 2
    return tf.where(happens < chance, number, 0)


def _drawn(seed: tf.Tensor, chance: float, low: float, high: float, shape: Sequence[int] = ()) -> tf.Tensor:
    """Return uniformly distributed numbers, float32, all of them with a chance, else 0."""
    happens, values = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    drawn = tf.random.stateless_uniform(shape, values, minval=low, maxval=high)
    return tf.where(tf.random.stateless_uniform((), happens) < chance, drawn, 0.0)


def augment(image: tf.Tensor, target: tf.Tensor, change: Change) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply a change.

    Args:
        image: float32 (x, y, z, modality), standardised over the brain and 0 in air.
        target: float32 (x, y, z, region) of 0 and 1.
        change: What happens.

    Returns:
        Both, of the same shapes; air is 0, and the target 0 and 1.
    """
    moved, target = _moved(image, target, change)
    return tf.ensure_shape(_recoloured(moved, change), image.shape), target


def _moved(image: tf.Tensor, target: tf.Tensor, change: Change) -> tuple[tf.Tensor, tf.Tensor]:
    first, second = (reorient(volume, change.quarters, change.flips) for volume in (image, target))
    is_warped = tf.reduce_any(change.angles_rad != 0) | (change.size != 1)
    moved: tuple[tf.Tensor, tf.Tensor] = tf.cond(
        is_warped, lambda: warp(first, second, change.angles_rad, change.size), lambda: (first, second)
    )
    return moved


def _recoloured(image: tf.Tensor, change: Change) -> tf.Tensor:
    brain = brain_of(image)
    noisy = _if(change.noise > 0, lambda: add_noise(image, brain, change.noise, change.noise_seed), image)
    blurred = _if(change.blur_vox > 0, lambda: blur(noisy, brain, change.blur_vox), noisy)
    is_rescaled = tf.reduce_any((change.factor != 1) | (change.shift != 0))
    rescaled = _if(is_rescaled, lambda: rescale(blurred, brain, change.factor, change.shift), blurred)
    return _if(tf.reduce_any(change.gamma != 1), lambda: bend(rescaled, brain, change.gamma), rescaled)


def _if(happens: tf.Tensor, changed: Callable[[], tf.Tensor], image: tf.Tensor) -> tf.Tensor:
    return tf.cond(happens, changed, lambda: image)
