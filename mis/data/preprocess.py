"""From a volume to what the network sees: pure functions of arrays."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

WHOLE_TUMOR = "WT"

Value = TypeVar("Value", bound=np.generic)


def standardise(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring each modality to mean 0 and variance 1 over the brain; what is outside stays 0.

    The brain is where any modality is not 0: the images are skull-stripped. (The paper's code
    standardises over the whole volume, so that the share of air sets the contrast of the brain.)

    Args:
        image: float32 (x, y, z, modality).

    Returns:
        float32 (x, y, z, modality); a modality that is constant over the brain becomes 0.
    """
    brain = np.any(image != 0, axis=-1)
    result = np.zeros_like(image)
    voxels = image[brain].astype(np.float64)
    if voxels.size:
        deviation = voxels.std(axis=0)
        result[brain] = (voxels - voxels.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return result


def fit_grid(array: NDArray[Value], multiple: int, how: Literal["crop", "pad"]) -> NDArray[Value]:
    """Crop or pad the first three axes with zeros, evenly on both sides, to multiples of `multiple`.

    An odd voxel is cropped in front and padded behind: 155 slices become 2:-1, as in the paper.

    >>> fit_grid(np.ones((8, 8, 155)), 8, "crop").shape, fit_grid(np.ones((8, 8, 155)), 8, "pad").shape
    ((8, 8, 152), (8, 8, 160))

    Raises:
        ValueError: An axis is shorter than `multiple` and is to be cropped.
    """
    for axis in range(3):
        size = array.shape[axis]
        if how == "pad":
            more = -size % multiple
            widths = [(0, 0)] * array.ndim
            widths[axis] = (more // 2, more - more // 2)
            array = np.pad(array, widths)
        else:
            if size < multiple:
                raise ValueError(f"an axis of {size} voxels cannot be cropped to a multiple of {multiple}")
            less = size % multiple
            array = array.take(range(less - less // 2, size - less // 2), axis=axis)
    return array


def region_channels(label: NDArray[np.uint8], regions: Mapping[str, Sequence[int]]) -> NDArray[np.uint8]:
    """Return one binary channel for each region, (x, y, z, region), in the order of `regions`."""
    return np.stack([np.isin(label, values) for values in regions.values()], axis=-1).astype(np.uint8)


def target_regions(
    regions: Mapping[str, tuple[int, ...]], target: Literal["regions", "whole_tumor"]
) -> dict[str, tuple[int, ...]]:
    """Return the regions that are learnt: all, or the whole tumour alone."""
    return dict(regions) if target == "regions" else {WHOLE_TUMOR: regions[WHOLE_TUMOR]}
