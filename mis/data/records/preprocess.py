"""From the volumes of a case to its record: the brain's voxels and the label in their box. Pure functions of arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mis.data.geometry import Shape

Float = TypeVar("Float", np.float32, np.float64)

MOST_FLOAT16 = 65504
"""The largest value of float16. A voxel so many standard deviations off is a fault of the file."""


@dataclass(frozen=True)
class Brain:
    """The voxels of a case in a box outside of which every modality is 0 and the label is background.

    Attributes:
        start: The index of the box's first voxel in the grid.
        mask: bool (x, y, z): the brain, where any modality is not 0; the images are skull-stripped.
        values: float32 (voxel, modality): the intensities in the mask, in the order of its indices.
        label: (x, y, z), with the values of the layout; None where there is no label.
    """

    start: Shape
    mask: NDArray[np.bool_]
    values: NDArray[np.float32]
    label: NDArray[Any] | None

    @property
    def image(self) -> NDArray[np.float32]:
        """The image in the box, float32 (x, y, z, modality)."""
        return filled(self.mask, self.values)


def find_brain(modalities: Sequence[NDArray[Any]], label: NDArray[Any] | None, *, crop: bool) -> Brain:
    """Return the brain of a case.

    Args:
        modalities: The volume of each modality, (x, y, z).
        label: (x, y, z); the box holds all that it marks, outside the brain too. None where there is no label.
        crop: Whether the box is the smallest that holds the brain, or the whole grid.
    """
    mask = modalities[0] != 0
    for modality in modalities[1:]:
        mask |= modality != 0
    used = mask if label is None else mask | (label != 0)
    box = smallest_box(used) if crop else tuple(slice(0, n) for n in mask.shape)
    inside = np.ascontiguousarray(mask[box])
    # Modality by modality in memory: their moments are sums over contiguous values, ten times as fast.
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


def standardise(values: NDArray[Float]) -> NDArray[Float]:
    """Return each modality with mean 0 and variance 1 over the brain.

    (The paper's code standardises over the whole volume, so that the share of air sets the contrast of
    the brain.)

    Args:
        values: The intensities of the brain's voxels, float32 or float64 (voxel, modality).

    Returns:
        The same shape and type; a modality that is constant becomes 0.
    """
    if not len(values):
        return values
    mean, deviation = moments(values)
    scale = np.where(deviation > 0, deviation, 1)
    result: NDArray[Float] = ((values - mean.astype(values.dtype)) / scale.astype(values.dtype)).astype(values.dtype)
    return result


def standardise_as_recorded(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return the intensities as a record has them: standardised, as float16, none beyond what it holds."""
    return np.clip(standardise(values), -MOST_FLOAT16, MOST_FLOAT16).astype(np.float16)


def moments(values: NDArray[Float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the standard deviation of each modality, float64 (modality,)."""
    mean = values.mean(axis=0, dtype=np.float64)
    return mean, np.sqrt(np.square(values - mean.astype(values.dtype)).mean(axis=0, dtype=np.float64))


def filled(mask: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
    """Return a volume, (x, y, z, ...), that has `values` in the mask and 0 elsewhere."""
    volume = np.zeros((*mask.shape, *values.shape[1:]), values.dtype)
    volume[mask] = values
    return volume


def region_bits(label: NDArray[np.integer[Any]], regions: Mapping[str, Sequence[int]]) -> NDArray[np.uint8]:
    """Return the regions that each voxel belongs to, a bit for each in the order of `regions`.

    >>> region_bits(np.array([0, 1, 2, 4]), {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}).tolist()
    [0, 3, 1, 7]
    """
    table = np.zeros(max(value for values in regions.values() for value in values) + 1, np.uint8)
    for bit, values in enumerate(regions.values()):
        table[list(values)] |= np.uint8(1 << bit)
    bits: NDArray[np.uint8] = table[label]
    return bits


def region_channels(bits: NDArray[np.uint8], wanted: Sequence[int]) -> NDArray[np.uint8]:
    """Return a channel of 0 and 1 for each wanted region, by the number of its bit: (..., region)."""
    return np.stack([bits >> bit & 1 for bit in wanted], axis=-1)
