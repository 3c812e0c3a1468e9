"""From a volume to what is stored of it: the brain's voxels and the label in their box. Pure functions of arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mis.data.geometry import Shape


@dataclass(frozen=True)
class Brain:
    """A case in its box: what lies outside is 0 in every modality, and background.

    Attributes:
        start: First voxel of the box in the grid.
        mask: bool (x, y, z): the brain, where any modality is not 0; the images are skull-stripped.
        values: float32 (voxel, modality): the intensities in the mask, in the order of its indices.
        label: (x, y, z), the layout's values; None where there is no label.
    """

    start: Shape
    mask: NDArray[np.bool_]
    values: NDArray[np.float32]
    label: NDArray[Any] | None

    @property
    def image(self) -> NDArray[np.float32]:
        """float32 (x, y, z, modality)."""
        return filled(self.mask, self.values)


def find_brain(modalities: Sequence[NDArray[Any]], label: NDArray[Any] | None, *, crop: bool) -> Brain:
    """Take the brain out of its volumes.

    Args:
        modalities: (x, y, z) each.
        label: (x, y, z); what it marks lies in the box, even outside the brain.
        crop: Whether the box is the smallest one, or the whole grid.
    """
    mask = modalities[0] != 0
    for modality in modalities[1:]:
        mask |= modality != 0
    used = mask if label is None else mask | (label != 0)
    box = smallest_box(used) if crop else tuple(slice(0, n) for n in mask.shape)
    inside = np.ascontiguousarray(mask[box])
    # Modality by modality in memory: their figures are sums over contiguous values, ten times as fast.
    values = np.empty((np.count_nonzero(inside), len(modalities)), np.float32, order="F")
    for number, modality in enumerate(modalities):
        with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and found
            values[:, number] = np.ascontiguousarray(modality[box])[inside]
    x, y, z = (part.start for part in box)
    return Brain((x, y, z), inside, values, None if label is None else np.ascontiguousarray(label[box]))


def smallest_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds all of a mask; one voxel where it is empty."""
    box = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1))
    return tuple(box)


def standardise(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring each modality to mean 0 and variance 1 over the brain.

    (The paper's code standardises over the whole volume, so that the share of air sets the contrast of
    the brain.)

    Args:
        values: float32 (voxel, modality), those of the brain.

    Returns:
        The same shape; a modality that is constant becomes 0.
    """
    if not len(values):
        return values
    mean, deviation = moments(values)
    scale = np.where(deviation > 0, deviation, 1)
    result: NDArray[np.float32] = ((values - mean.astype(np.float32)) / scale.astype(np.float32)).astype(np.float32)
    return result


def moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the standard deviation of each modality, float64 (modality,)."""
    mean = values.mean(axis=0, dtype=np.float64)
    return mean, np.sqrt(np.square(values - mean.astype(np.float32)).mean(axis=0, dtype=np.float64))


def filled(mask: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
    """Return a volume that has `values` in the mask and 0 elsewhere: (x, y, z, ...)."""
    volume = np.zeros((*mask.shape, *values.shape[1:]), values.dtype)
    volume[mask] = values
    return volume


def region_bits(label: NDArray[np.integer[Any]], regions: Mapping[str, Sequence[int]]) -> NDArray[np.uint8]:
    """Return for each voxel which regions it belongs to, bit by bit in the order of `regions`.

    >>> region_bits(np.array([0, 1, 2, 4]), {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}).tolist()
    [0, 3, 1, 7]
    """
    table = np.zeros(max(value for values in regions.values() for value in values) + 1, np.uint8)
    for bit, values in enumerate(regions.values()):
        table[list(values)] |= np.uint8(1 << bit)
    bits: NDArray[np.uint8] = table[label]
    return bits


def region_channels(bits: NDArray[np.uint8], numbers: Sequence[int]) -> NDArray[np.uint8]:
    """Return a channel of 0 and 1 for each of some regions, by their bits: (..., region)."""
    return np.stack([bits >> number & 1 for number in numbers], axis=-1)
