"""How large a network is: its weights, what it sees, and the memory of a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import keras

from mis.model.unet import connect_unet
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
    outputs = keras.backend.compute_output_spec(layers, keras.KerasTensor((cases, *grid, modalities)))
    return NetworkSize(
        weights=sum(prod(weight.shape) for weight in model.trainable_variables),
        receptive_field=receptive_field(params),
        activation_bytes=sum(prod(output.shape) for output in outputs) * itemsize,
    )


def receptive_field(params: ModelParams) -> int:
    """Return how many voxels of the image, along an axis, a voxel of the result depends on at most.

    A convolution of kernel k whose voxels are j voxels of the image apart adds (k - 1) j, a pooling of 2 adds j
    (Araujo et al., Distill, 2019); a transposed convolution of kernel and stride 2 has one voxel before it.

    >>> from mis.params.model import ModelParams
    >>> params = ModelParams(
    ...     depth=1, base_filters=4, max_filters=320, kernel_size=3, block="plain", norm="none", groups=4,
    ...     activation="relu", downsampling="pool", dropout=0.0, deep_supervision=0,
    ... )
    >>> receptive_field(params)  # 2 and 2 at full resolution, 1 of the pooling, 4 and 4 at half, 2 and 2
    18
    """
    reach, apart = 1, 1
    wide = params.kernel_size - 1
    for level in range(params.depth + 1):
        if level and params.downsampling == "pool":
            reach, apart = reach + apart, 2 * apart
        reach += wide * apart  # the first convolution, which has the stride where there is one
        if level and params.downsampling == "stride":
            apart *= 2
        reach += wide * apart
    for _ in range(params.depth):
        apart //= 2
        reach += 2 * wide * apart
    return reach
