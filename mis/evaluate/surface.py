"""Distances between the surfaces of two masks, in the two ways that the scores of brain tumours have them."""

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mis.data.records.preprocess import smallest_box

Mask = NDArray[np.bool_]
Spacing = Sequence[float]

CORNERS = tuple(product((0, 1), repeat=3))
"""The corners of a cube of 2 x 2 x 2 voxels, in the order of the bits of its code."""

TRIANGLES: tuple[tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]], ...] = (
    ((7,), ((1, 1, 1),)),
    ((6, 7), ((2, 2, 0), (2, 2, 0))),
    ((5, 6), ((1, 1, 1), (1, 1, 1))),
    ((0, 7), ((1, 1, 1), (1, 1, 1))),
    ((5, 6, 7), ((1, 1, 1), (2, 2, 2), (4, 0, 0))),
    ((3, 4, 7), ((0, 2, 2), (0, 2, 2), (1, 1, 1))),
    ((3, 5, 6), ((1, 1, 1), (1, 1, 1), (1, 1, 1))),
    ((4, 5, 6, 7), ((4, 0, 0), (4, 0, 0))),
    ((3, 5, 6, 7), ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2))),
    ((3, 4, 6, 7), ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3))),
    ((3, 4, 5, 6), ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0))),
    ((2, 3, 4, 5), ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0))),
    ((1, 2, 4, 7), ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1))),
)
"""The surface in a cube of 2 x 2 x 2 voxels by marching cubes, its vertices halfway between voxels: which corners are
in the mask, and the normals of its triangles, as long as their area, in eighths of a voxel. One cube of each kind: all
others are one of these turned, reflected, or with what is inside and outside exchanged."""


def surface_areas(spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return the area of the surface in each of the 256 cubes of 2 x 2 x 2 voxels, in mm^2, by the cube's code."""
    dx, dy, dz = spacing_mm
    faces = np.array([dy * dz, dx * dz, dx * dy]) / 8
    areas: NDArray[np.float64] = np.linalg.norm(_normals() * faces, axis=-1).sum(axis=-1)
    return areas


@cache
def _normals() -> NDArray[np.float64]:
    """Return the normals of each cube's triangles, float64 (code, triangle, 3), without their signs."""
    normals = np.zeros((256, 4, 3))
    for corners, triangles in TRIANGLES:
        for axes, flips in product(permutations(range(3)), product((0, 1), repeat=3)):
            turned = (
                tuple(CORNERS[corner][axis] ^ flip for axis, flip in zip(axes, flips, strict=True))
                for corner in corners
            )
            code = sum(1 << CORNERS.index(corner) for corner in turned)
            for same in (code, 255 - code):
                normals[same, : len(triangles)] = np.array(triangles)[:, list(axes)]
    return normals


def robust_hausdorff_mm(truth: Mask, predicted: Mask, spacing_mm: Spacing, percent: float = 95) -> float:
    """Return the larger of the two directed percentiles of surface distances, weighted by the surface's area.

    As in DeepMind's surface-distance (Nikolov et al., 2018), by which BraTS 2023 is scored. A surface's elements lie at
    the corners of voxels.

    Args:
        truth: (x, y, z).
        predicted: (x, y, z).
        spacing_mm: The edges of a voxel.
        percent: The percentile, 0 to 100.

    Returns:
        Millimetres; infinite where one mask is empty, or both are.
    """
    if not truth.any() or not predicted.any():
        return inf
    areas = surface_areas(spacing_mm)
    codes = [_cube_codes(mask) for mask in _cropped(truth, predicted)]
    surfaces = [(code != 0) & (code != 255) for code in codes]
    distances = _directed_distances(surfaces, spacing_mm)
    return max(
        _weighted_percentile(values, areas[code[surface]], percent)
        for values, code, surface in zip(distances, codes, surfaces, strict=True)
    )


def _cube_codes(mask: Mask) -> NDArray[np.uint8]:
    """Return the code of each cube of 2 x 2 x 2 voxels: a bit for each of its corners that is in the mask."""
    codes = np.zeros([length - 1 for length in mask.shape], np.uint8)
    for bit, corner in enumerate(CORNERS):
        x, y, z = (slice(first, first + length) for first, length in zip(corner, codes.shape, strict=True))
        codes |= mask[x, y, z].astype(np.uint8) << bit
    return codes


def _weighted_percentile(values: NDArray[np.float64], weights: NDArray[np.float64], percent: float) -> float:
    """Return the first of the sorted values at which the weights so far reach a share of all."""
    order = np.lexsort((weights, values))
    reached = np.cumsum(weights[order]) / np.sum(weights[order])
    index = np.searchsorted(reached, percent / 100)
    return float(values[order][min(int(index), len(order) - 1)])


def pooled_hausdorff_mm(truth: Mask, predicted: Mask, spacing_mm: Spacing, percent: float = 95) -> float:
    """Return the percentile of the surface distances of both directions together, as medpy and panoptica have it.

    A surface's elements are the voxels of the mask that have a face in common with one outside of it.

    Args:
        truth: (x, y, z).
        predicted: (x, y, z).
        spacing_mm: The edges of a voxel.
        percent: The percentile, 0 to 100.

    Returns:
        Millimetres; infinite where one mask is empty, or both are.
    """
    if not truth.any() or not predicted.any():
        return inf
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in _cropped(truth, predicted)]
    return float(np.percentile(np.concatenate(_directed_distances(surfaces, spacing_mm)), percent))


def _cropped(first: Mask, second: Mask) -> list[Mask]:
    """Return two masks cropped to the smallest box that holds both, with a voxel outside of it on each side."""
    box = smallest_box(first | second)
    return [np.pad(mask[box], 1) for mask in (first, second)]


def _directed_distances(surfaces: Sequence[Mask], spacing_mm: Spacing) -> list[NDArray[np.float64]]:
    """Return the distance of each element of either of two surfaces to the other surface, in mm."""
    return [ndimage.distance_transform_edt(~surfaces[1 - side], sampling=spacing_mm)[surfaces[side]] for side in (0, 1)]
