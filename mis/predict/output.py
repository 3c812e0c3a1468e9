"""Write a prediction as NIfTI: on the grid of its image, with the header's orientation and affine."""

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mis.files import new_file


def write_volume(path: Path, voxels: NDArray[np.generic], like: Path, scale: float = 1) -> None:
    """Write a volume that lies on an image, whole or not at all.

    The affine is that of the image to the last bit, in the same fields of the header (sform or qform) with the same
    codes, so that a viewer lays the one over the other.

    Args:
        path: The file, `.nii.gz` or `.nii`.
        voxels: (x, y, z) or (x, y, z, channel), axes as the image has them; its type is the file's.
        like: The image's file.
        scale: What a reader multiplies the voxels by.
    """
    header = nib.load(like).header.copy()
    header.extensions.clear()  # they are of the image: how it was acquired, and perhaps of whom
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header["cal_min"] = header["cal_max"] = 0  # the intensities of a viewer's window
    header["descrip"] = b""
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = image_class(voxels, None, header)
    image.header.set_slope_inter(scale, 0)
    with new_file(path) as unfinished:
        nib.save(image, unfinished)
