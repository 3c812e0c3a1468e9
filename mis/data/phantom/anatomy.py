"""Drawing the healthy brain, displaced by a tumour's mass."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from mis.data.phantom.grid import Array, Grid, Mask, inside_ellipsoid, ramp, smooth_field
from mis.data.phantom.sample import Anatomy, Tumour

CSF, GREY, WHITE = 1, 2, 3
"""Values of the tissues, 0 outside the brain."""


@dataclass(frozen=True)
class Brain:
    """The healthy brain on the box of a grid; every array has axes (x, y, z).

    CSF, grey and white matter are shares of a voxel in [0, 1] that add up to 1 within the mask.
    """

    grid: Grid
    points: Array
    """(3, x, y, z): each voxel's position in mm."""
    mask: Mask
    csf: Array
    grey: Array
    white: Array
    depth_mm: Array
    """Below the brain's surface; negative outside."""
    ventricle_mm: Array
    """Distance into a ventricle; negative outside."""


def render_brain(anatomy: Anatomy, tumour: Tumour, grid: Grid, rng: Generator) -> Brain:
    """Draw the healthy brain, displaced by the tumour's mass."""
    hull_rng, fold_rng, ventricle_rng = rng.spawn(3)
    positions = grid.coordinates(anatomy.tilt_rad)
    points = positions / np.float32(anatomy.size)
    cerebrum, cerebellum, stem = _hull(points, smooth_field(grid, 30, hull_rng))
    depth = np.maximum(np.maximum(cerebrum, cerebellum), stem)
    points = _push(points, tumour, tumour.radius_mm)
    folds = np.where(
        cerebrum >= cerebellum,
        _sulci(anatomy, grid, points, depth, fold_rng),
        _folia(grid, points, depth, fold_rng),
    )
    # The brain stem has neither sulci nor a cortex.
    to_csf = np.where(stem > 0, 20, np.minimum(depth + 0.5, folds - anatomy.sulcus_width_mm / 2))
    ventricle = _ventricles(points, anatomy.ventricles, smooth_field(grid, 12, ventricle_rng))
    csf = np.maximum(ramp(-to_csf, grid.soft_mm), ramp(ventricle, grid.soft_mm))
    grey = np.maximum(ramp(anatomy.cortex_mm - to_csf, grid.soft_mm), 0.8 * ramp(_nuclei(points), grid.soft_mm))
    grey *= 1 - csf
    return Brain(grid, positions, depth > 0, csf, grey, 1 - csf - grey, depth, ventricle)


def _push(points: Array, tumour: Tumour, radius_mm: float) -> Array:
    """Return where each point lay before the tumour pushed the tissue outwards (mass effect)."""
    offset = points - np.asarray(tumour.centre_mm, np.float32).reshape(3, 1, 1, 1)
    distance_2 = (offset**2).sum(axis=0)
    result: Array = points - 0.25 * np.exp(-distance_2 / np.float32((1.6 * radius_mm) ** 2)) * offset
    return result


def _hull(points: Array, bump: Array) -> tuple[Array, Array, Array]:
    """Return the distances in mm into the cerebrum, the cerebellum and the brain stem."""
    mirrored = np.stack([np.abs(points[0]), points[1], points[2]])
    base = points[2] + 28 - 0.15 * points[1]
    upper = np.minimum(inside_ellipsoid(points, (0, 0, 7), (67, 86, 61)), base)
    temporal = inside_ellipsoid(mirrored, (41, 4, -21), (22, 42, 24))
    cerebrum = np.maximum(upper, temporal) + 1.8 * bump
    cerebellum = inside_ellipsoid(mirrored, (17, -44, -40), (33, 30, 24)) + bump
    stem = inside_ellipsoid(points, (0, -12, -46), (13, 14, 26))
    return cerebrum, cerebellum, stem


def _sulci(anatomy: Anatomy, grid: Grid, points: Array, depth: Array, rng: Generator) -> Array:
    """Return the distance in mm to the next sulcus or to the fissure between the hemispheres.

    A sulcus is a sheet where a smooth random field is zero, down to a depth that varies.
    """
    cell = max(9.0, 3 * grid.voxel_mm)
    sheet = np.abs(smooth_field(grid, cell, rng)) * (0.6 * cell)
    deep = anatomy.sulcus_depth_mm * (1 + 0.25 * smooth_field(grid, 30, rng))
    sulcus = np.hypot(sheet, np.maximum(0, depth - deep))
    middle = points[0] + 1.2 * smooth_field(grid, 25, rng)
    result: Array = np.minimum(sulcus, np.hypot(middle, np.maximum(0, depth - 30)))
    return result


def _folia(grid: Grid, points: Array, depth: Array, rng: Generator) -> Array:
    """Return the distance in mm to the next of the cerebellum's narrow sulci, which fan out from its stalk."""
    backwards, upwards = -points[1] - 14, points[2] + 38
    spacing_rad = max(0.22, 0.12 * grid.voxel_mm)
    fan = (np.arctan2(upwards, backwards) + 0.05 * smooth_field(grid, 15, rng)) / spacing_rad
    sheet = np.abs(fan - np.round(fan)) * spacing_rad * np.hypot(upwards, backwards)
    result: Array = np.hypot(sheet, np.maximum(0, depth - 9))
    return result


def _ventricles(points: Array, size: float, bump: Array) -> Array:
    """Return the distance in mm into the lateral ventricles and the third, negative outside."""
    x, y, z = points
    # The bodies arch over the thalamus and their horns flare outwards.
    bent = np.stack([np.abs(x) - 7 - 0.007 * y**2, y + 2, z - 17 + 0.007 * y**2])
    lateral = inside_ellipsoid(bent, (0, 0, 0), (5.5 * size, 33 * size, 8 * size))
    third = inside_ellipsoid(points, (0, -6, 1), (2.2 * size, 12, 9))
    result: Array = np.maximum(lateral, third) + 0.8 * bump
    return result


def _nuclei(points: Array) -> Array:
    """Return the distance in mm into the deep grey matter: thalamus, lentiform nucleus, caudate."""
    mirrored = np.stack([np.abs(points[0]), points[1], points[2]])
    thalamus = inside_ellipsoid(mirrored, (11, -12, 5), (8, 13, 8))
    lentiform = inside_ellipsoid(mirrored, (25, 4, 3), (6, 16, 9))
    caudate = inside_ellipsoid(mirrored, (14, 16, 10), (4, 9, 8))
    return np.maximum(np.maximum(thalamus, lentiform), caudate)
