"""Check that a case is what its layout says, before anything is computed from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mis.data.layouts import Case, DataSet
from mis.data.volumes import read_volume
from mis.errors import MisError


@dataclass(frozen=True)
class Volume:
    """A case in memory.

    Attributes:
        image: float32 (x, y, z, modality), finite, in the scanner's units.
        label: uint8 (x, y, z), the layout's label values.
        affine: float64 (4, 4), from voxel indices to millimetres.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def load_case(case: Case, data: DataSet) -> Volume:
    """Read a labelled case and check it.

    Raises:
        MisError: A file is unreadable, has the wrong axes, modalities or label values, holds NaN or
            infinity, or the shapes of image and label differ. The message names the file.
    """
    if case.label is None:
        raise MisError(f"case {case.id} must have a label", got="none")
    (path,) = case.images
    image, affine = read_volume(path)
    check_image(image, path, data)
    label, _ = read_volume(case.label)
    check_label(label, case.label, data)
    if image.shape[:3] != label.shape:
        raise MisError(f"{case.label} must have the shape of its image {path.name}, {image.shape[:3]}", got=label.shape)
    return Volume(image, label.astype(np.uint8), affine)


def check_image(image: NDArray[np.float32], path: Path, data: DataSet) -> None:
    """Refuse an image that is not (x, y, z, modality), or not finite."""
    if image.ndim != 4:
        raise MisError(f"{path} must have four axes (x, y, z, modality)", got=f"{image.ndim} in shape {image.shape}")
    if image.shape[3] != len(data.modalities):
        raise MisError(
            f"{path} must have the modalities {', '.join(data.modalities)}",
            got=f"{image.shape[3]} of them in shape {image.shape}",
        )
    _check_finite(image, path)


def check_label(label: NDArray[np.float32], path: Path, data: DataSet) -> None:
    """Refuse a label that is not (x, y, z), or has other values than the layout's."""
    if label.ndim != 3:
        raise MisError(f"{path} must have three axes (x, y, z)", got=f"{label.ndim} in shape {label.shape}")
    _check_finite(label, path)
    unknown = np.setdiff1d(label, np.asarray(data.label_values))
    if unknown.size:
        raise MisError(
            f"{path}: label values must be among {list(data.label_values)}",
            got=f"{', '.join(f'{value:g}' for value in unknown[:5])} as well",
        )


def _check_finite(array: NDArray[np.float32], path: Path) -> None:
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        first = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise MisError(f"{path} must hold finite values", got=f"{array[first]} at {first} and {bad} such in all")
