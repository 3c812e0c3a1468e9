"""How large a network is: its weights, what it sees, and the memory of a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import keras

from mis.model.unet import connect_unet, count_parameters
from mis.params.model import ModelParams


@dataclass(frozen=True)
class NetworkSize:
    """The size of a network.

    Attributes:
        weights: Trainable weights.
        receptive_field: Voxels along an axis of the image that a voxel of the result depends on at most.
        activation_bytes: What all its layers put out in one step on one device: most of what a training keeps until the
            gradients are computed. Its peak is about twice that.
    """

    weights: int
    receptive_field: int
    activation_bytes: int

    def __str__(self) -> str:
        """Return the size as a line."""
        return (
            f"{self.weights:,} weights, a receptive field of {self.receptive_field} voxels, "
            f"{self.activation_bytes / 1e9:.2g} GB of activations a step and device"
        )


def network_size(
    params: ModelParams, modalities: int, regions: int, grid: Sequence[int], *, cases: int, itemsize: int = 4
) -> NetworkSize:
    """Return the size of a network.

    Args:
        params: The network.
        modalities: Channels of the image.
        regions: Channels of the target.
        grid: The voxels of the image along (x, y, z).
        cases: Cases of a step on one device.
        itemsize: Bytes of a number; 2 in half precision.
    """
    network = connect_unet(params, modalities, regions)
    model = keras.Model(network.image, list(network.logits))
    layers = keras.Model(network.image, [layer.output for layer in model.layers])
    outputs = layers.compute_output_shape((cases, *grid, modalities))
    return NetworkSize(
        weights=count_parameters(model),
        receptive_field=receptive_field(params),
        activation_bytes=sum(prod(shape) for shape in outputs) * itemsize,
    )


def receptive_field(params: ModelParams) -> int:
    """Return how many voxels of the image, along an axis, a voxel of the result depends on at most.

    Counted backwards, from a voxel of the result to the voxels of each layer that it depends on, wherever it lies among
    them (Araujo et al., Distill, 2019): of n voxels behind it a convolution of kernel k sees n + k - 1, or with a
    stride of 2 2 (n - 1) + k; a pooling 2 n; and before a transposed convolution of stride 2 they were n // 2 + 1.

    >>> from mis.params.model import ModelParams
    >>> params = ModelParams(
    ...     depth=1, base_filters=4, max_filters=320, kernel_size=3, block="plain", norm="none", groups=4,
    ...     activation="relu", stem_stride=1, downsampling="pool", dropout=0.0, deep_supervision=0,
    ... )
    >>> receptive_field(params)  # 1, 3 and 5; 3 before the transposed convolution, 5 and 7; 14 before the pooling, 16
    18
    """
    kernel, seen = params.kernel_size, 1
    if params.stem_stride == 2:
        seen = (seen + kernel - 1) // 2 + 1
    for _ in range(params.depth):
        seen = (seen + 2 * (kernel - 1)) // 2 + 1
    for level in reversed(range(params.depth + 1)):
        seen += kernel - 1
        if level and params.downsampling == "stride":
            seen = 2 * (seen - 1) + kernel
        else:
            seen += kernel - 1
            seen *= 2 if level else 1
    return 2 * (seen - 1) + kernel if params.stem_stride == 2 else seen
