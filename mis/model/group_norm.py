"""Group normalisation (Wu and He, ECCV 2018) computed from sums per channel, in keras.ops alone.

With a group for each channel it is instance normalisation.
"""

from functools import partial

import keras
from keras import ops


def from_channel_sums(layer: keras.layers.GroupNormalization) -> keras.layers.GroupNormalization:
    """Let a group normalisation of Keras compute the same result faster, and return the same layer.

    Keras reduces over (x, y, z, channel of the group), for which TensorFlow transposes the volume. Here each channel
    is reduced over (x, y, z), which needs no transposition, and the few sums are then combined by group: see
    docs/cpu.md.

    The layer stays a layer of Keras: its name, its weights and its configuration do not change, so that a saved model
    loads without this package. Only the `call` of this object is replaced.

    Args:
        layer: A layer whose channel axis is the last axis.
    """
    layer.call = partial(_normalise, layer)
    return layer


def accelerate(model: keras.Model) -> keras.Model:
    """Let every group normalisation of a model compute from sums per channel, and return the same model."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.GroupNormalization) and layer.axis in (-1, len(layer.input.shape) - 1):
            from_channel_sums(layer)
    return model


def _normalise(layer: keras.layers.GroupNormalization, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Return what the `call` of Keras returns for the layer, for inputs of shape (batch, ..., channel)."""
    # Half precision overflows in the sums; Keras computes in float32 as well.
    x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    voxels = tuple(range(1, len(x.shape) - 1))
    # A result does not depend on a shift of its inputs: shifted by their mean, the mean of the squares minus the square
    # of the mean loses no digits. What float32 has rounded off that mean is left in `rest`.
    shift = ops.stop_gradient(_group_mean(ops.mean(x, axis=voxels, keepdims=True), layer.groups))
    shifted = x - shift
    rest = _group_mean(ops.mean(shifted, axis=voxels, keepdims=True), layer.groups)
    squares = _group_mean(ops.mean(ops.square(shifted), axis=voxels, keepdims=True), layer.groups)
    scale = ops.rsqrt(squares - ops.square(rest) + layer.epsilon)
    if layer.scale:
        scale = scale * ops.cast(layer.gamma, x.dtype)
    offset = -rest * scale
    if layer.center:
        offset = offset + ops.cast(layer.beta, x.dtype)
    return ops.cast(shifted * scale + offset, layer.compute_dtype)


def _group_mean(means: keras.KerasTensor, groups: int) -> keras.KerasTensor:
    """Return for each channel the mean over those of its group; both have the shape (batch, 1, ..., channel)."""
    channels, rank = means.shape[-1], len(means.shape)
    if groups == channels:
        return means
    size = channels // groups
    by_group = ops.mean(ops.reshape(means, (-1, groups, size)), axis=-1, keepdims=True)
    # A product with ones is traced into 10 operations of TensorFlow, `ops.repeat` into 37.
    return ops.reshape(by_group * ops.ones((1, 1, size), means.dtype), (-1, *(1,) * (rank - 2), channels))
