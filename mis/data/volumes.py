"""Read NIfTI files."""

import hashlib
import logging
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger as nibabel_log
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from mis.errors import MisError

# What nibabel and gzip raise on a file that is cut short or is something else.
UNREADABLE: tuple[type[BaseException], ...] = (  # type: ignore[assignment]  # isal annotates its error wrongly
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    MemoryError,
    TypeError,
    zlib.error,
    isal_zlib.error,
)

Buffer = bytes | memoryview

GZIP_MAGIC = b"\x1f\x8b"
STEP_BYTES = 2**20
LONGEST_HEADER_BYTES = 540
"""The length of a header of NIfTI-2."""

# nibabel's own lines on a damaged header would stand beside the one line that names the file.
nibabel_log.setLevel(logging.CRITICAL)


class UnreadableError(MisError):
    """A file that cannot be read as NIfTI.

    Attributes:
        reason: What is wrong with it, on one line.
    """

    def __init__(self, path: Path, error: BaseException) -> None:
        self.reason = " ".join(str(error).split())
        super().__init__(f"{path} must be a complete NIfTI file: {self.reason}", do="copy it again")


@dataclass(frozen=True)
class Image:
    """A NIfTI file in memory.

    Attributes:
        voxels: Axes as the file has them, scl_slope and scl_inter applied: float32 where they are other than
            1 and 0, else the type that the file has. Read only.
        affine: float64 (4, 4), from voxel indices to millimetres, of the first three axes.
        spacing_mm: The edges of a voxel in the order of the file's axes, in millimetres.
        is_placed: Whether the header says how the axes lie; where it does not, NIfTI's oldest convention is assumed.
        sha256: The hash of the file as it is on disk.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    is_placed: bool
    sha256: str


def read_image(path: Path) -> Image:
    """Read a whole NIfTI file; whether it is compressed is told by its content, not by its name.

    ISA-L unpacks several times as fast as zlib, and the voxels are a view of what it returns.

    Raises:
        UnreadableError: The file is not NIfTI, is cut short, or holds no real numbers.
    """
    try:
        packed = path.read_bytes()
        digest = hashlib.sha256(packed).hexdigest()
        content = _unpacked(packed) if packed.startswith(GZIP_MAGIC) else packed
        header = _header_class(content).from_fileobj(BytesIO(content[:LONGEST_HEADER_BYTES]))
        voxels = _scaled(_voxels(content, header), header)
        affine = _checked_affine(np.asarray(header.get_best_affine(), dtype=np.float64))
    except UNREADABLE as error:
        raise UnreadableError(path, error) from None
    x, y, z = (float(edge) for edge in voxel_sizes(affine))
    return Image(voxels, affine, (x, y, z), bool(header["sform_code"] > 0 or header["qform_code"] > 0), digest)


def _unpacked(content: bytes) -> Buffer:
    """Return what a gzip file holds, its length and checksum compared.

    It is unpacked into memory of the length that the file's last four bytes give: `igzip.decompress` takes twice the
    memory and half as long again.
    """
    # Empty, and not zeros, which would take the memory at once: the length may be a wrong one.
    unpacked = np.empty(int.from_bytes(content[-4:], "little"), np.uint8).data
    at = 0
    with igzip.open(BytesIO(content)) as file:  # type: ignore[no-untyped-call]
        while count := file.readinto(unpacked[at : at + STEP_BYTES]):
            at += count
        rest = file.read()  # compares; there is more where files were packed one behind another, or above 4 GiB
    return b"".join((unpacked[:at], rest)) if rest else unpacked[:at]


def without_trailing_axes(voxels: NDArray[Any], axes: int) -> NDArray[Any]:
    """Return voxels without trailing axes of length 1 beyond the first `axes`, which some programs write."""
    while voxels.ndim > axes and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return voxels


def _header_class(content: Buffer) -> Any:  # noqa: ANN401 - nibabel has no types
    """Tell NIfTI-1 from NIfTI-2 by the size that the header begins with, in either byte order."""
    if not content:
        raise ValueError("it is empty")
    sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    if not sizes & {348, 540}:
        raise ValueError(f"it begins with {bytes(content[:12])!r}, not with a header of NIfTI")
    return nib.Nifti2Header if 540 in sizes else nib.Nifti1Header


def _voxels(content: Buffer, header: Any) -> NDArray[Any]:  # noqa: ANN401
    """Return the voxels as the file stores them, a view of its content."""
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header.get_data_offset())
    if dtype.kind not in "iuf":
        raise ValueError(f"its voxels are {dtype}, not real numbers")
    if not shape or min(shape) < 1:
        raise ValueError(f"its shape is {shape}")
    count = int(np.prod(shape, dtype=np.int64))
    if len(content) < offset + count * dtype.itemsize:
        raise ValueError(f"it ends after {len(content)} of {offset + count * dtype.itemsize} bytes")
    flat = np.frombuffer(content, dtype, count, offset)
    return flat.reshape(shape, order="F")


def _checked_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine, (4, 4), where it gives every voxel a place of its own."""
    with np.errstate(all="ignore"):
        sizes, volume = voxel_sizes(affine), np.linalg.det(affine[:3, :3])
        is_placed = np.isfinite([*affine.ravel(), *sizes, volume]).all() and volume and sizes.min() > 0
    if not is_placed or np.isnan(nib.io_orientation(affine)).any():
        raise ValueError(f"its affine is {affine[:3].tolist()}, which places no voxel")
    return affine


def _scaled(voxels: NDArray[Any], header: Any) -> NDArray[Any]:  # noqa: ANN401
    """Return the voxels with scl_slope and scl_inter applied."""
    slope, intercept = header.get_slope_inter()
    if slope is None or (slope, intercept) == (1, 0):
        return voxels
    scaled = np.empty(voxels.shape, np.float32, order="F")
    with np.errstate(over="ignore"):
        for index in range(voxels.shape[-1]):  # one slice at a time: float64 takes twice the memory
            scaled[..., index] = voxels[..., index] * np.float64(slope) + np.float64(intercept)
    return scaled
