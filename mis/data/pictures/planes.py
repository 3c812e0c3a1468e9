"""The planes of a volume in every picture of a case, where they lie, and the outlines of regions on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import ndimage

from mis.data.geometry import Shape
from mis.data.pictures.colours import REGION_COLOURS, REGION_DASHES

PLANES = (("sagittal", 0), ("coronal", 1), ("axial", 2))
"""The planes, each with the axis of RAS that it is perpendicular to."""

SIDES = {"axial": "LRPA", "coronal": "LRIS", "sagittal": "PAIS"}
"""The letters of the sides that are left, right, below and above in each plane of RAS."""


def take_plane(volume: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return a plane as it is drawn, (row, column, ...): its rows go upwards along the higher of the two axes.

    In RAS the picture's right is then the patient's right (sagittal: anterior), and its top is anterior or superior.

    Args:
        volume: (x, y, z, ...).
        axis: The axis that the plane is perpendicular to.
        index: The index of the plane along that axis.
    """
    return np.swapaxes(volume.take(index, axis=axis), 0, 1)


def lesion_centre(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Shape:
    """Return the index along each axis of the plane with most of the largest lesion.

    A lesion is a connected part of the tumour of the truth; where that has none, of what was predicted, and where there
    is nothing either, the planes go through the middle.

    Args:
        truth: bool (x, y, z, region).
        predicted: The same of the prediction.
    """
    for masks in (truth, predicted):
        parts, count = ndimage.label(masks.any(axis=-1), ndimage.generate_binary_structure(3, 3))
        if count:
            largest = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
            areas = (largest.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3))
            x, y, z = (int(area.argmax()) for area in areas)
            return x, y, z
    x, y, z = (length // 2 for length in truth.shape[:3])
    return x, y, z


def mark_sides(axes: Axes, plane: str, colour: str) -> None:
    """Write the letters of a plane's four sides; the patient's left (L) is on the left."""
    positions = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.0), (0.5, 1.0))
    aligned = (("left", "center"), ("right", "center"), ("center", "bottom"), ("center", "top"))
    for letter, (x, y), (ha, va) in zip(SIDES[plane], positions, aligned, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, ha=ha, va=va, size=9, weight="bold", color=colour)


def outline(axes: Axes, masks: NDArray[Any], regions: Sequence[str]) -> None:
    """Draw the border of each region that has one.

    Args:
        axes: The axes that the plane has been drawn on.
        masks: (row, column, region), 0 and 1.
        regions: The names of the regions; the last is drawn on top.
    """
    for channel, region in enumerate(regions):
        mask = masks[..., channel]
        if mask.any() and not mask.all():
            axes.contour(
                mask.astype(float),
                levels=[0.5],
                colors=REGION_COLOURS[region],
                linestyles=[REGION_DASHES[region]],
                linewidths=1.2,
            )
