"""The 3D U-Net of the paper (Çiçek et al., MICCAI 2016, with 8 filters at full resolution).

Layers and keras.ops alone, so that it runs on every Keras backend.
"""

import keras

from mis.model.group_norm import from_channel_sums
from mis.params.model import ModelParams

BATCH_NORM_MOMENTUM = 0.9
"""An epoch has few batches: Keras' default, 0.99, averages over 100 of them, and validation would lag by epochs."""


def build_unet(params: ModelParams, in_channels: int, out_channels: int) -> keras.Model:
    """Build a 3D U-Net with sigmoid outputs, for any grid whose axes are multiples of 2**depth.

    Each of `depth` levels has two convolutions and a max pooling, the bottom has two
    convolutions, and each level on the way up a transposed convolution, the skip connection and
    two convolutions. Filters double from level to level.

    Args:
        params: Depth, filters, kernel and normalisation.
        in_channels: Modalities of the image.
        out_channels: Regions of the target.

    Returns:
        A model from (batch, x, y, z, in_channels) to probabilities (batch, x, y, z, out_channels)
        in float32, each channel by itself: regions are nested, not exclusive.

    >>> from mis.params.model import ModelParams
    >>> params = ModelParams(depth=1, base_filters=4, kernel_size=3, norm="group", groups=4)
    >>> build_unet(params, in_channels=4, out_channels=3).output_shape
    (None, None, None, None, 3)
    """
    filters = [params.base_filters * 2**level for level in range(params.depth + 1)]
    inputs = keras.Input((None, None, None, in_channels), name="image")
    skips = []
    x = inputs
    for level, width in enumerate(filters[:-1]):
        x = _convolve_twice(x, width, params, f"down{level}")
        skips.append(x)
        x = keras.layers.MaxPooling3D(2, name=f"down{level}_pool")(x)
    x = _convolve_twice(x, filters[-1], params, "bottom")
    for level in reversed(range(params.depth)):
        x = keras.layers.Conv3DTranspose(filters[level], 2, strides=2, name=f"up{level}_upsample")(x)
        x = keras.layers.Concatenate(name=f"up{level}_skip")([skips[level], x])
        x = _convolve_twice(x, filters[level], params, f"up{level}")
    outputs = keras.layers.Conv3D(out_channels, 1, activation="sigmoid", dtype="float32", name="regions")(x)
    return keras.Model(inputs, outputs, name="unet3d")


def _convolve_twice(x: keras.KerasTensor, width: int, params: ModelParams, name: str) -> keras.KerasTensor:
    """Apply two convolutions with `width` filters, each with normalisation and ReLU."""
    for step in ("a", "b"):
        # A normalisation adds a bias itself.
        use_bias = params.norm == "none"
        x = keras.layers.Conv3D(
            width,
            params.kernel_size,
            padding="same",
            use_bias=use_bias,
            kernel_initializer="he_normal",
            name=f"{name}{step}",
        )(x)
        x = _normalise(x, params, f"{name}{step}_norm")
        x = keras.layers.ReLU(name=f"{name}{step}_relu")(x)
    return x


def _normalise(x: keras.KerasTensor, params: ModelParams, name: str) -> keras.KerasTensor:
    """Normalise with the channel axis last.

    Batch norm's statistics are those of the global batch, synchronised over the replicas. Otherwise the result would
    depend on the number of devices.
    """
    if params.norm == "batch":
        synchronized = keras.backend.backend() == "tensorflow"
        return keras.layers.BatchNormalization(
            axis=-1, momentum=BATCH_NORM_MOMENTUM, synchronized=synchronized, name=name
        )(x)
    if params.norm == "group":
        return from_channel_sums(keras.layers.GroupNormalization(params.groups, axis=-1, name=name))(x)
    return x
