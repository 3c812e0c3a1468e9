"""The grid that a phantom is drawn on, and what is drawn with: smooth fields, ellipsoids, soft borders."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mis.errors import MisError

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Shape = tuple[int, int, int]
Point = tuple[float, float, float]

MIN_AXIS = 16
"""Least voxels along an axis: below it a brain is under 12 voxels across and a tumour's parts are single voxels."""
FIELD_OF_VIEW_MM = (155.0, 190.0, 155.0)
"""It holds every brain that is sampled: about 140 x 175 x 140 mm, as in BraTS, and its variation."""


@dataclass(frozen=True)
class Grid:
    """The grid that a brain is drawn on: a box of the volume that holds the field of view.

    Attributes:
        shape: The number of voxels of the whole volume along (x, y, z).
    """

    shape: Shape

    @property
    def voxel_mm(self) -> float:
        """The edge of a voxel in millimetres of the anatomy."""
        return max(extent / n for extent, n in zip(FIELD_OF_VIEW_MM, self.shape, strict=True))

    @property
    def soft_mm(self) -> float:
        """Half the width over which one tissue passes into the next: partial volume."""
        return max(0.7, 0.5 * self.voxel_mm)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The box of the field of view as slices of the volume."""
        sizes = [min(n, int(np.ceil(e / self.voxel_mm))) for n, e in zip(self.shape, FIELD_OF_VIEW_MM, strict=True)]
        starts = [(n - size) // 2 for n, size in zip(self.shape, sizes, strict=True)]
        x, y, z = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        return x, y, z

    @property
    def box_shape(self) -> Shape:
        """The number of voxels of the box along (x, y, z)."""
        x, y, z = (part.stop - part.start for part in self.box)
        return x, y, z

    def coordinates(self, tilt_rad: float) -> Array:
        """Return the position of each voxel of the box in mm of the anatomy, tilted about the z axis: (3, x, y, z)."""
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * self.voxel_mm for n in self.box_shape]
        x, y, z = np.meshgrid(*axes, indexing="ij")
        cos, sin = np.cos(tilt_rad), np.sin(tilt_rad)
        return np.stack([cos * x - sin * y, sin * x + cos * y, z]).astype(np.float32)

    def paste(self, box: NDArray[Any]) -> NDArray[Any]:
        """Return the whole volume with the values of a box in it and 0 elsewhere; axes after the third are kept."""
        volume = np.zeros(self.shape + box.shape[3:], box.dtype)
        volume[self.box] = box
        return volume


def smooth_field(grid: Grid, cell_mm: float, rng: Generator) -> Array:
    """Return a smooth random field: a cubic B-spline with normal control points.

    The sums have four terms each and no matrix product: a BLAS would round them differently with
    another number of threads, and the bytes written would depend on the machine's load.

    Args:
        grid: The grid whose box it fills.
        cell_mm: The distance of the control points; raised to two voxels where it is less.
        rng: The source of the control points.

    Returns:
        (x, y, z) of the grid's box; mean 0, standard deviation about 1.
    """
    cell = max(cell_mm, 2 * grid.voxel_mm) / grid.voxel_mm
    counts = [int((n - 1) / cell) + 4 for n in grid.box_shape]
    field = rng.standard_normal(counts, dtype=np.float32)
    for axis, n in enumerate(grid.box_shape):
        field = _upsample(field, axis, np.arange(n) / cell)
    # The mean over a cell of the squared weights is 151/315 in each axis.
    return field / np.float32((151 / 315) ** 1.5)


def _upsample(control: Array, axis: int, position: NDArray[np.float64]) -> Array:
    """Return the spline along one axis at positions that are given in cells."""
    index, u = np.floor(position).astype(int), position % 1
    weights = ((1 - u) ** 3 / 6, (3 * u**3 - 6 * u**2 + 4) / 6, (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6, u**3 / 6)
    along = [1, 1, 1]
    along[axis] = len(position)
    result: Array = sum(
        np.take(control, index + k, axis=axis) * weight.astype(np.float32).reshape(along)
        for k, weight in enumerate(weights)
    )  # type: ignore[assignment]  # sum's start value 0 is never its result
    return result


def inside_ellipsoid(points: Array, centre: Point, semi_axes: Point) -> Array:
    """Return the distance into an ellipsoid, negative outside, to first order at its surface.

    Args:
        points: (3, x, y, z) in mm.
        centre: In mm.
        semi_axes: In mm.
    """
    scaled = [(p - c) / a for p, c, a in zip(points, centre, semi_axes, strict=True)]
    radius = np.sqrt(sum(q**2 for q in scaled)) + 1e-6
    gradient = np.sqrt(sum((q / a) ** 2 for q, a in zip(scaled, semi_axes, strict=True))) + 1e-8
    result: Array = radius * (1 - radius) / gradient
    return result


def ramp(distance: NDArray[np.floating[Any]], soft_mm: float) -> Array:
    """Return the share of a voxel that lies inside a border, 0 to 1.

    Args:
        distance: Into the border, in mm, negative outside.
        soft_mm: Half the width over which the share goes from 0 to 1.
    """
    result: Array = np.clip(0.5 + distance / (2 * soft_mm), 0, 1).astype(np.float32)
    return result


def check_shape(shape: Shape) -> None:
    """Raise MisError where an axis is too short for a brain."""
    if min(shape) < MIN_AXIS:
        raise MisError(
            f"a phantom must have at least {MIN_AXIS} voxels in each axis", got=shape, do="see phantom.shape"
        )
