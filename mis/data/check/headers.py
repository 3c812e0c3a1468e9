"""Checks of what the headers of a case's files say: axes, shape, place, size of the voxels.

Each returns whether the check may go on: after an error the voxels cannot be brought to one grid.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from mis.data.case import MODALITIES, Case
from mis.data.check.collector import Collector
from mis.data.geometry import same_spacing
from mis.data.volumes import Image, without_trailing_axes
from mis.params.data import DataParams

ROUNDING_MM = 0.01
"""Affines that place a corner of the volume less far apart differ by rounding."""

THINNEST_MM, THICKEST_MM, LONGEST_MM = 0.2, 8.0, 500.0
"""Limits of a voxel's edge, and of a volume's: a header beyond them is in another unit, or wrong."""

Images = Mapping[Path, Image]
"""The files of a case that could be read, by path."""


def check_axes(case: Case, images: Images, findings: Collector) -> bool:
    """Check that each file has the axes of its layout, and that an image of one file has the four modalities."""
    good = True
    for path, image in images.items():
        shape = image.voxels.shape
        axes = 4 if path in case.images and len(case.images) == 1 else 3
        if without_trailing_axes(image.voxels, axes).ndim != axes:
            findings.add("axes", path, f"{len(shape)} in shape {shape}, not {axes}")
            good = False
        elif axes == 4 and shape[3] != len(MODALITIES):
            findings.add("modalities", path, f"{shape[3]} in shape {shape}")
            good = False
    return good


def check_same_grid(case: Case, images: Images, findings: Collector) -> bool:
    """Check that all files of a case have the shape and the affine of the first."""
    first = images[case.images[0]]
    good = True
    for path, image in images.items():
        shape, expected = image.voxels.shape[:3], first.voxels.shape[:3]
        if shape != expected:
            findings.add("shape", path, f"{shape} and {expected} in {case.images[0].name}")
            good = False
        elif not np.allclose(image.spacing_mm, first.spacing_mm, rtol=1e-3):
            findings.add("affine", path, f"voxels of {in_mm(image.spacing_mm)} and {in_mm(first.spacing_mm)}")
            good = False
        elif (distance := _distance_mm(image.affine, first.affine, expected)) >= ROUNDING_MM:
            findings.add("affine", path, f"{distance:.3g} mm from {case.images[0].name}")
            good = False
        elif distance > 0:
            findings.add("affine-rounding", path, f"{distance:.1g} mm from {case.images[0].name}")
    return good


def _distance_mm(affine: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]) -> float:
    """Return how far apart two affines place the same corner of a volume at most."""
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = apply_affine(affine, corners) - apply_affine(other, corners)
    return float(np.linalg.norm(offsets, axis=-1).max())


def check_voxel_size(case: Case, images: Images, findings: Collector) -> bool:
    """Check that voxels are as large as a scanner's, and that the headers say how the axes lie."""
    first = images[case.images[0]]
    if unplaced := [path for path, image in images.items() if not image.is_placed]:
        axes = "".join(nib.aff2axcodes(images[unplaced[0]].affine))
        text = f"sform_code and qform_code 0 in {len(unplaced)} of its files, taken for {axes}"
        findings.add("no-orientation", unplaced[0], text)
    extents = np.multiply(first.spacing_mm, first.voxels.shape[:3])
    if min(first.spacing_mm) >= THINNEST_MM and max(first.spacing_mm) <= THICKEST_MM and max(extents) <= LONGEST_MM:
        return True
    text = f"{in_mm(first.spacing_mm)}, a volume of {in_mm(extents.tolist())}"
    findings.add("voxel-size", case.images[0], text)
    return False


def check_spacing(case: Case, images: Images, findings: Collector, params: DataParams) -> bool:
    """Check that the voxels have the wanted size, where another size is not resampled."""
    image = images[case.images[0]]
    if params.other_spacing == "resample":
        return True
    ras_axes = np.argsort(nib.io_orientation(image.affine)[:, 0])
    spacing_mm = tuple(image.spacing_mm[axis] for axis in ras_axes)
    if same_spacing(spacing_mm, params.spacing_mm):
        return True
    findings.add("spacing", case.images[0], f"{in_mm(spacing_mm)}, not {in_mm(params.spacing_mm)}")
    return False


def in_mm(edges: Sequence[float]) -> str:
    """Return edges as text.

    >>> in_mm((1, 1, 1.5))
    '1 x 1 x 1.5 mm'
    """
    return " x ".join(f"{edge:.4g}" for edge in edges) + " mm"
