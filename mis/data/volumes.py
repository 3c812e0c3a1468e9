"""Read NIfTI files."""

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from mis.errors import MisError

# What nibabel and gzip raise on a file that is cut short or is something else.
UNREADABLE = (ImageFileError, EOFError, OSError, ValueError, zlib.error)


def read_volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read one NIfTI file whole.

    Returns:
        The voxels as float32 with scl_slope and scl_inter applied, axes as the file has them, and
        the affine (4, 4) from voxel indices to millimetres.

    Raises:
        MisError: The file is not NIfTI or is cut short.
    """
    try:
        image = nib.load(path)
        return image.get_fdata(dtype=np.float32, caching="unchanged"), np.asarray(image.affine, dtype=np.float64)
    except UNREADABLE as error:
        raise MisError(f"{path} must be a complete NIfTI file: {error}", do="copy it again") from None
