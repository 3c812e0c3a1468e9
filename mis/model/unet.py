"""The 3D U-Net (Çiçek et al., MICCAI 2016), from the paper's of 8 filters to a residual one with deep supervision.

Layers and keras.ops alone, so that it runs on every Keras backend.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import keras

from mis.model.group_norm import from_channel_sums
from mis.params.model import ModelParams

BATCH_NORM_MOMENTUM = 0.9
"""An epoch has few batches: Keras' default, 0.99, averages over 100 of them, and validation would lag by epochs."""

LEAKY_SLOPE = 0.01
"""Of the leaky ReLU below 0, as in nnU-Net; Keras' default is 0.3."""


@dataclass(frozen=True)
class UNet:
    """A network's tensors, of which a model is made.

    Attributes:
        image: The input, (batch, x, y, z, modality).
        probabilities: float32 (batch, x, y, z, region), in [0, 1], each channel by itself: regions are nested, not
            exclusive.
        logits: Of which the sigmoid is the probability, float32: at full resolution and, with deep supervision, at
            each level below, whose grid is half that of the level before.
    """

    image: keras.KerasTensor
    probabilities: keras.KerasTensor
    logits: Sequence[keras.KerasTensor]


def build_unet(params: ModelParams, in_channels: int, out_channels: int) -> keras.Model:
    """Return a 3D U-Net from images to probabilities, for any grid whose axes are multiples of 2**depth.

    Args:
        params: The network.
        in_channels: Modalities of the image.
        out_channels: Regions of the target.

    Returns:
        A model from (batch, x, y, z, in_channels) to probabilities (batch, x, y, z, out_channels), see `UNet`.

    >>> from mis.params.model import ModelParams
    >>> params = ModelParams(
    ...     depth=1, base_filters=4, max_filters=320, kernel_size=3, block="plain", norm="group", groups=4,
    ...     activation="relu", stem_stride=1, downsampling="pool", dropout=0.0, deep_supervision=0,
    ... )
    >>> build_unet(params, in_channels=4, out_channels=3).output_shape
    (None, None, None, None, 3)
    """
    network = connect_unet(params, in_channels, out_channels)
    return keras.Model(network.image, network.probabilities, name="unet3d")


def connect_unet(params: ModelParams, in_channels: int, out_channels: int) -> UNet:
    """Connect the layers of a U-Net.

    Each of `depth` levels has a block of two convolutions and is halved, the bottom has a block, and each level on the
    way up a transposed convolution, the skip connection and a block. Filters double from level to level, up to
    `max_filters`. With a `stem_stride` of 2 all of that has half the resolution, and one convolution beside the image
    refines the result.

    Args:
        params: The network.
        in_channels: Modalities of the image.
        out_channels: Regions of the target.
    """
    filters = params.filters
    x = image = keras.Input((None, None, None, in_channels), name="image")
    if params.stem_stride == 2:
        x = _activate(_convolve(x, filters[0], params, "stem", stride=2), params, "stem")
    skips = []
    for level in range(params.depth):
        x = _block(x, filters[level], params, f"down{level}", stride=_stride(params, level))
        skips.append(x)
        if params.downsampling == "pool":
            x = keras.layers.MaxPooling3D(2, name=f"down{level}_pool")(x)
    x = _block(x, filters[-1], params, "bottom", stride=_stride(params, params.depth))
    decoded = []
    for level in reversed(range(params.depth)):
        x = keras.layers.Conv3DTranspose(filters[level], 2, strides=2, name=f"up{level}_upsample")(x)
        x = keras.layers.Concatenate(name=f"up{level}_skip")([skips[level], x])
        x = _block(x, filters[level], params, f"up{level}")
        decoded.append(x)
    if params.stem_stride == 2:
        x = keras.layers.Conv3DTranspose(filters[0], 2, strides=2, name="refine_upsample")(x)
        x = keras.layers.Concatenate(name="refine_skip")([image, x])
        decoded.append(_activate(_convolve(x, filters[0], params, "refine"), params, "refine"))
    logits = [
        keras.layers.Conv3D(out_channels, 1, dtype="float32", name=f"logits{level}" if level else "logits")(x)
        for level, x in enumerate(decoded[::-1][: params.deep_supervision + 1])
    ]
    probabilities = keras.layers.Activation("sigmoid", dtype="float32", name="regions")(logits[0])
    return UNet(image, probabilities, logits)


def count_parameters(model: keras.Model) -> int:
    """Return how many trainable weights a model has."""
    return sum(prod(weight.shape) for weight in model.trainable_variables)


def _stride(params: ModelParams, level: int) -> int:
    """Return the stride of a level's first convolution on the way down."""
    return 2 if params.downsampling == "stride" and level else 1


def _block(x: keras.KerasTensor, width: int, params: ModelParams, name: str, stride: int = 1) -> keras.KerasTensor:
    """Apply two convolutions with `width` filters, each with normalisation and activation, as `model.block` says.

    The residual block adds its input before the last activation; where the grid or the filters change, the input goes
    through a convolution of kernel 1, whose stride is that of the block.
    """
    shortcut = x
    x = _activate(_convolve(x, width, params, f"{name}a", stride=stride), params, f"{name}a")
    x = _convolve(x, width, params, f"{name}b")
    if params.block == "residual":
        if stride > 1 or shortcut.shape[-1] != width:
            shortcut = _convolve(shortcut, width, params, f"{name}_shortcut", kernel_size=1, stride=stride)
        x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    x = _activate(x, params, f"{name}b")
    return keras.layers.SpatialDropout3D(params.dropout, name=f"{name}_dropout")(x) if params.dropout else x


def _convolve(
    x: keras.KerasTensor, width: int, params: ModelParams, name: str, *, stride: int = 1, kernel_size: int | None = None
) -> keras.KerasTensor:
    """Apply a convolution and the normalisation."""
    x = keras.layers.Conv3D(
        width,
        kernel_size or params.kernel_size,
        strides=stride,
        padding="same",
        use_bias=params.norm == "none",  # a normalisation adds a bias itself
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return _normalise(x, params, f"{name}_norm")


def _activate(x: keras.KerasTensor, params: ModelParams, name: str) -> keras.KerasTensor:
    slope = LEAKY_SLOPE if params.activation == "leaky_relu" else 0.0
    return keras.layers.ReLU(negative_slope=slope, name=f"{name}_relu")(x)


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
    if params.norm in ("group", "instance"):
        groups = params.groups if params.norm == "group" else x.shape[-1]
        return from_channel_sums(keras.layers.GroupNormalization(groups, axis=-1, name=name))(x)
    return x
