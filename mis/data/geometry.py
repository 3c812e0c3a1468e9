"""Where a record's voxels lie in the grid of the file that they come from, and the way back.

The grid of a file is turned to RAS, perhaps resampled to another spacing, and cropped to a box; the grid of a network
is that box, cropped or padded. Each step can be undone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

SAME_SPACING = 1e-3
"""Largest relative difference of two spacings that comes from rounding in headers."""


@dataclass(frozen=True)
class Geometry:
    """The way from a file's grid to a box of a RAS grid.

    Attributes:
        shape: The number of voxels of the file along its first three axes.
        affine: The file's affine, (4, 4), row by row, from voxel indices to millimetres.
        orientation: For each of the file's axes the axis of RAS that it becomes, and whether it keeps (1) or
            changes (-1) its direction; nibabel's `io_orientation`.
        grid: The number of voxels of the RAS grid along (x, y, z), after resampling.
        start: The index of the box's first voxel in the RAS grid.
        size: The number of voxels of the box along (x, y, z).
    """

    shape: Shape
    affine: tuple[tuple[float, ...], ...]
    orientation: tuple[tuple[int, int], ...]
    grid: Shape
    start: Shape
    size: Shape

    @classmethod
    def of(cls, shape: Shape, affine: NDArray[np.float64], spacing_mm: Spacing | None = None) -> "Geometry":
        """Return the geometry of a file whose box is its whole grid.

        Args:
            shape: The lengths of its first three axes.
            affine: (4, 4), from voxel indices to millimetres.
            spacing_mm: The spacing that it is resampled to, in RAS; None keeps the spacing of the file.
        """
        orientation = nib.io_orientation(affine).astype(int)
        ras = tuple(int(shape[axis]) for axis in np.argsort(orientation[:, 0]))
        source = voxel_sizes(affine)[np.argsort(orientation[:, 0])]
        target = source if spacing_mm is None or same_spacing(source, spacing_mm) else np.asarray(spacing_mm)
        grid = tuple(max(1, round(n * old / new)) for n, old, new in zip(ras, source, target, strict=True))
        rows = tuple(tuple(float(value) for value in row) for row in affine)
        pairs = tuple((int(axis), int(flip)) for axis, flip in orientation)
        return cls(shape, rows, pairs, as_shape(grid), (0, 0, 0), as_shape(grid))

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The box as slices of the RAS grid."""
        x, y, z = (slice(first, first + n) for first, n in zip(self.start, self.size, strict=True))
        return x, y, z

    @property
    def ras_shape(self) -> Shape:
        """The file's shape with its axes in the order of RAS, before resampling."""
        return as_shape(self.shape[axis] for axis in np.argsort([axis for axis, _ in self.orientation]))

    @property
    def box_affine(self) -> NDArray[np.float64]:
        """The affine of the box, (4, 4), from its voxel indices to millimetres."""
        ras = np.asarray(self.affine) @ nib.orientations.inv_ornt_aff(np.array(self.orientation), self.shape)
        ratio = np.array(self.ras_shape) / np.array(self.grid)
        step = np.diag([*ratio, 1.0])
        step[:3, 3] = (ratio - 1) / 2 + ratio * np.array(self.start)
        return np.asarray(ras @ step, dtype=np.float64)

    def to_grid(self, volume: NDArray[Any], *, nearest: bool) -> NDArray[Any]:
        """Bring a volume of the file to the RAS grid; a view where only axes change.

        Args:
            volume: (x, y, z) as the file has it.
            nearest: Whether resampling takes the nearest voxel, for labels; else it interpolates linearly.
        """
        ras = nib.apply_orientation(volume, np.array(self.orientation))
        return ras if ras.shape == self.grid else _resample(ras, self.grid, nearest=nearest)

    def to_file(self, box: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Bring a volume of the box back to the file's grid; the nearest voxel is taken where it was resampled.

        Args:
            box: The volume, (x, y, z), of the box's size.
            fill: The value outside of the box.

        Returns:
            A volume with the axes and the shape of the file.
        """
        grid = np.full(self.grid, fill, box.dtype)
        grid[self.box] = box
        if self.grid != self.ras_shape:
            grid = _resample(grid, self.ras_shape, nearest=True)
        back = nib.orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), np.array(self.orientation))
        return np.ascontiguousarray(nib.apply_orientation(grid, back))

    def to_json(self) -> dict[str, Any]:
        """Return the geometry as JSON values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Geometry":
        """Return the geometry that `to_json` wrote."""
        pairs = tuple((int(axis), int(flip)) for axis, flip in values["orientation"])
        rows = tuple(tuple(row) for row in values["affine"])
        shape, grid, start, size = (as_shape(values[name]) for name in ("shape", "grid", "start", "size"))
        return cls(shape, rows, pairs, grid, start, size)


def same_spacing(spacing_mm: Any, other_mm: Any) -> bool:  # noqa: ANN401 - any three numbers
    """Return whether two spacings differ by no more than what headers round.

    >>> same_spacing((1, 1, 1.0000004), (1, 1, 1)), same_spacing((1, 1, 1.2), (1, 1, 1))
    (True, False)
    """
    return bool(np.allclose(spacing_mm, other_mm, rtol=SAME_SPACING, atol=0))


def centred_start(size: Any, target: Any) -> Any:  # noqa: ANN401 - numbers, arrays or tensors of whole numbers
    """Return where a window of `target` voxels begins along an axis of `size` voxels so that its middle is the axis'.

    It is negative where the axis is padded. An odd voxel is cropped in front and padded behind: 155 slices become
    2:-1 of them, as in the paper.

    >>> centred_start(155, 152), centred_start(155, 160), centred_start(240, 240)
    (2, -2, 0)
    """
    return (size - target + 1) // 2


def take_window(volume: NDArray[Any], start: Shape, size: Shape) -> NDArray[Any]:
    """Return a window of a volume, with 0 where it reaches beyond the volume.

    Args:
        volume: (x, y, z, ...).
        start: The index of the window's first voxel; negative where the window begins before the volume.
        size: The number of voxels of the window along (x, y, z).
    """
    window = np.zeros((*size, *volume.shape[3:]), volume.dtype)
    inside = [(max(0, a), min(n, a + b)) for a, b, n in zip(start, size, volume.shape[:3], strict=True)]
    if all(first < last for first, last in inside):
        target = tuple(slice(first - a, last - a) for (first, last), a in zip(inside, start, strict=True))
        window[target] = volume[tuple(slice(first, last) for first, last in inside)]
    return window


def _resample(volume: NDArray[Any], shape: Shape, *, nearest: bool) -> NDArray[Any]:
    """Return a volume resampled to another number of voxels over the same extent."""
    from scipy import ndimage  # late: no process that trains needs it, and each would take 0.2 s for it

    ratio = np.array(volume.shape) / np.array(shape)
    source = volume if nearest else volume.astype(np.float32)
    result: NDArray[Any] = ndimage.affine_transform(
        source, ratio, offset=(ratio - 1) / 2, output_shape=shape, order=0 if nearest else 1, mode="nearest"
    )
    return result


def as_shape(values: Any) -> Shape:  # noqa: ANN401 - any three numbers
    """Return three whole numbers."""
    x, y, z = (int(value) for value in values)
    return x, y, z
