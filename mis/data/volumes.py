"""Read NIfTI files."""

import gzip
import logging
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger as nibabel_log
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from mis.errors import MisError

# What nibabel and gzip raise on a file that is cut short or is something else.
UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
)


# Its own words on a damaged header would stand beside the one line that names the file.
nibabel_log.setLevel(logging.CRITICAL)


def read_volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read one NIfTI file whole.

    Returns:
        The voxels as float32 with scl_slope and scl_inter applied, axes as the file has them, and
        the affine (4, 4) from voxel indices to millimetres.

    Raises:
        MisError: The file is not NIfTI or is cut short.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            image = _image_class(stream).from_stream(stream)
            voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
            stream.read()  # to the end: only there gzip compares length and checksum
    except UNREADABLE as error:
        raise MisError(f"{path} must be a complete NIfTI file: {error}", do="copy it again") from None
    return voxels, np.asarray(image.affine, dtype=np.float64)


def _image_class(stream: gzip.GzipFile | BinaryIO) -> Any:  # noqa: ANN401 - nibabel has no types
    """Tell NIfTI-1 from NIfTI-2 by the size that the header begins with, in either byte order."""
    size = stream.read(4)
    stream.seek(0)
    return nib.Nifti2Image if 540 in {int.from_bytes(size, "little"), int.from_bytes(size, "big")} else nib.Nifti1Image
