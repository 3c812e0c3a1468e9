"""Where a record's voxels lie in the grid of the file that they come from, and the way back.

A file's grid is brought to RAS, perhaps to another spacing, and cut to a box; a network's grid is that
box, cropped or padded. Each step can be undone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

SAME_SPACING = 1e-3
"""Relative difference that comes from rounding in headers."""


@dataclass(frozen=True)
class Geometry:
    """The way from a file's grid to a box of a RAS grid.

    Attributes:
        shape: Voxels of the file in the order of its axes.
        affine: Its affine, (4, 4), row by row.
        orientation: For each of the file's axes the axis of RAS that it becomes, and whether it keeps (1) or
            changes (-1) its direction; nibabel's `io_orientation`.
        grid: Voxels of the RAS grid, after resampling.
        start: First voxel of the box in it.
        size: Voxels of the box.
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
            shape: Its first three axes.
            affine: (4, 4), from voxel indices to millimetres.
            spacing_mm: The spacing that it is resampled to, in RAS; None keeps its own.
        """
        orientation = nib.io_orientation(affine).astype(int)
        ras = tuple(int(shape[axis]) for axis in np.argsort(orientation[:, 0]))
        own = voxel_sizes(affine)[np.argsort(orientation[:, 0])]
        target = own if spacing_mm is None or same_spacing(own, spacing_mm) else np.asarray(spacing_mm)
        grid = tuple(max(1, round(n * a / b)) for n, a, b in zip(ras, own, target, strict=True))
        rows = tuple(tuple(float(value) for value in row) for row in affine)
        pairs = tuple((int(axis), int(flip)) for axis, flip in orientation)
        return cls(shape, rows, pairs, _shape(grid), (0, 0, 0), _shape(grid))

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The box as an index of the RAS grid."""
        x, y, z = (slice(first, first + n) for first, n in zip(self.start, self.size, strict=True))
        return x, y, z

    @property
    def ras_shape(self) -> Shape:
        """Voxels of the file with its axes in the order of RAS."""
        return _shape(self.shape[axis] for axis in np.argsort([axis for axis, _ in self.orientation]))

    @property
    def box_affine(self) -> NDArray[np.float64]:
        """(4, 4), from indices of the box to millimetres."""
        ras = np.asarray(self.affine) @ nib.orientations.inv_ornt_aff(np.array(self.orientation), self.shape)
        ratio = np.array(self.ras_shape) / np.array(self.grid)
        step = np.diag([*ratio, 1.0])
        step[:3, 3] = (ratio - 1) / 2 + ratio * np.array(self.start)
        return np.asarray(ras @ step, dtype=np.float64)

    def to_grid(self, volume: NDArray[Any], *, nearest: bool) -> NDArray[Any]:
        """Bring a volume of the file to the RAS grid; a view where only axes change.

        Args:
            volume: (x, y, z) as the file has it.
            nearest: Take the nearest voxel, for labels; else interpolate linearly.
        """
        ras = nib.apply_orientation(volume, np.array(self.orientation))
        return ras if ras.shape == self.grid else _resample(ras, self.grid, nearest=nearest)

    def to_file(self, box: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Bring a volume of the box back to the file's grid, voxel by voxel; the nearest where it was resampled.

        Args:
            box: (x, y, z) of the box.
            fill: What lies outside of the box.

        Returns:
            The axes and the shape of the file.
        """
        grid = np.full(self.grid, fill, box.dtype)
        grid[self.box] = box
        if self.grid != self.ras_shape:
            grid = _resample(grid, self.ras_shape, nearest=True)
        back = nib.orientations.ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), np.array(self.orientation))
        return np.ascontiguousarray(nib.apply_orientation(grid, back))

    def prediction_to_file(self, volume: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Bring what a network predicted for the whole case back to the file's grid.

        Args:
            volume: (x, y, z) of the grid that all cases share, `mis.data.records.index.Records.shape`.
            fill: What lies outside of the box.

        Returns:
            The axes and the shape of the file: with its affine it is a NIfTI file that lies on the image.
        """
        x, y, z = fit_window(self.size, _shape(volume.shape))
        return self.to_file(take_window(volume, (-x, -y, -z), self.size), fill)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Geometry":
        """Return the geometry that `to_json` wrote."""
        pairs = tuple((int(axis), int(flip)) for axis, flip in values["orientation"])
        rows = tuple(tuple(row) for row in values["affine"])
        shape, grid, start, size = (_shape(values[name]) for name in ("shape", "grid", "start", "size"))
        return cls(shape, rows, pairs, grid, start, size)


def same_spacing(one: Any, other: Any) -> bool:  # noqa: ANN401 - any three numbers
    """Tell whether two spacings differ by no more than headers round.

    >>> same_spacing((1, 1, 1.0000004), (1, 1, 1)), same_spacing((1, 1, 1.2), (1, 1, 1))
    (True, False)
    """
    return bool(np.allclose(one, other, rtol=SAME_SPACING, atol=0))


def fit_window(size: Shape, target: Shape) -> tuple[int, int, int]:
    """Return where a window of `target` voxels begins in a box of `size`, evenly on both sides.

    It is negative where the box is padded. An odd voxel is cropped in front and padded behind: 155
    slices become 2:-1 of them, as in the paper.

    >>> fit_window((240, 240, 155), (240, 240, 152)), fit_window((8, 8, 155), (8, 8, 160))
    ((0, 0, 2), (0, 0, -2))
    """
    x, y, z = (-((b - n) // 2) if b >= n else (n - b + 1) // 2 for n, b in zip(size, target, strict=True))
    return x, y, z


def take_window(volume: NDArray[Any], start: Shape, size: Shape) -> NDArray[Any]:
    """Return a window of a volume's first three axes, 0 where it reaches beyond."""
    result = np.zeros((*size, *volume.shape[3:]), volume.dtype)
    inside = [(max(0, a), min(n, a + b)) for a, b, n in zip(start, size, volume.shape[:3], strict=True)]
    if all(first < last for first, last in inside):
        to = tuple(slice(first - a, last - a) for (first, last), a in zip(inside, start, strict=True))
        result[to] = volume[tuple(slice(first, last) for first, last in inside)]
    return result


def _resample(volume: NDArray[Any], shape: Shape, *, nearest: bool) -> NDArray[Any]:
    """Bring a volume to another number of voxels over the same extent."""
    ratio = np.array(volume.shape) / np.array(shape)
    source = volume if nearest else volume.astype(np.float32)
    result: NDArray[Any] = ndimage.affine_transform(
        source, ratio, offset=(ratio - 1) / 2, output_shape=shape, order=0 if nearest else 1, mode="nearest"
    )
    return result


def _shape(values: Any) -> Shape:  # noqa: ANN401 - any three numbers
    x, y, z = (int(value) for value in values)
    return x, y, z
