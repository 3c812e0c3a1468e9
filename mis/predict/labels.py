"""From the probabilities of regions to a label map. Pure functions of arrays."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mis.data.case import REGIONS

NEIGHBOURS_26 = ndimage.generate_binary_structure(3, 3)
"""Voxels that share a face, an edge or a corner are connected, as in the scores of BraTS."""


def regions_from_probabilities(
    probability: NDArray[np.floating], threshold: float, min_voxels: int = 0
) -> NDArray[np.bool_]:
    """Return which voxels belong to each region, bool (x, y, z, region).

    Args:
        probability: (x, y, z, region), in [0, 1].
        threshold: The least probability of a voxel that belongs to a region.
        min_voxels: The fewest voxels of a lesion: a connected part of a region with fewer is taken away.
    """
    predicted: NDArray[np.bool_] = probability >= threshold
    if min_voxels > 1:
        for region in range(predicted.shape[-1]):
            predicted[..., region] = without_small_parts(predicted[..., region], min_voxels)
    return predicted


def without_small_parts(mask: NDArray[np.bool_], min_voxels: int) -> NDArray[np.bool_]:
    """Return a mask, (x, y, z), without its connected parts of fewer voxels."""
    parts, count = ndimage.label(mask, NEIGHBOURS_26)
    if not count:
        return mask
    keeps = np.bincount(parts.ravel()) >= min_voxels
    keeps[0] = False
    result: NDArray[np.bool_] = keeps[parts]
    return result


def nested_labels(
    predicted: NDArray[np.bool_], regions: Sequence[str], label_values: Mapping[str, Sequence[int]]
) -> NDArray[np.uint8]:
    """Return the label of each voxel by the rule `nested`: that of the innermost region to which it belongs.

    So a voxel of ET is labelled as enhancing even where TC or WT was not predicted for it. A region's own label is the
    value that the region has and the next one within it has not; where there are several, the first.

    Args:
        predicted: bool (x, y, z, region).
        regions: The names of the regions, from the outermost to the innermost.
        label_values: The label values that make up each region, by its name.

    Returns:
        uint8 (x, y, z), 0 where no region is.

    >>> mask = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]], bool).reshape(4, 1, 1, 3)
    >>> nested_labels(mask, ("WT", "TC", "ET"), {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}).ravel().tolist()
    [0, 2, 1, 4]
    """
    labels = np.zeros(predicted.shape[:3], np.uint8)
    for channel, region in enumerate(regions):
        inner = REGIONS[REGIONS.index(region) + 1 :]
        within = set(label_values[inner[0]]) if inner else set()
        own = [value for value in label_values[region] if value not in within]
        labels[predicted[..., channel]] = own[0]
    return labels
