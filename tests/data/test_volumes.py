import gzip

import nibabel as nib
import numpy as np
import pytest

from mis.data.volumes import read_volume
from mis.errors import MisError

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 1, 0, -5], [0, 0, 3, 7], [0, 0, 0, 1]])


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(-500, 500, (5, 6, 7, 2)).astype(np.int16)


def save(voxels, path, slope=None, inter=None):
    image = nib.Nifti1Image(voxels, AFFINE)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_voxels_and_affine_come_back(tmp_path, voxels, name, dtype):
    array, affine = read_volume(save(voxels.astype(dtype), tmp_path / name))
    assert (array.dtype, affine.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(array, voxels.astype(dtype).astype(np.float32))
    np.testing.assert_array_equal(affine, AFFINE)


def test_slope_and_intercept_are_applied(tmp_path):
    path = tmp_path / "a.nii"
    save(np.array([[[0, 1, 2]]], dtype=np.int16), path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.5, -3.0], "<f4").tobytes()  # scl_slope and scl_inter of NIfTI-1
    path.write_bytes(bytes(content))
    assert read_volume(path)[0].ravel().tolist() == [-3.0, -2.5, -2.0]


def cut(path, size):
    """Keep the first `size` bytes, or all but the last `-size`."""
    content = path.read_bytes()
    assert abs(size) < len(content)
    path.write_bytes(content[:size])


@pytest.mark.parametrize("size", [0, 1, 9, 10, 60, 200, 400, -200, -20, -9, -8, -4, -1])
def test_a_compressed_file_that_is_cut_short_is_named(tmp_path, voxels, size):
    path = save(voxels, tmp_path / "case.nii.gz")
    cut(path, size)
    with pytest.raises(MisError) as error:
        read_volume(path)
    assert f"{path} must be a complete NIfTI file" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, 1, 100, 347, 348, 352, 353, -400, -2, -1])
def test_a_plain_file_that_is_cut_short_is_named(tmp_path, voxels, size):
    path = save(voxels, tmp_path / "case.nii")
    cut(path, size)
    with pytest.raises(MisError) as error:
        read_volume(path)
    assert f"{path} must be a complete NIfTI file" in str(error.value)


def test_a_compressed_file_of_a_file_that_is_cut_short_is_named(tmp_path, voxels):
    plain = save(voxels, tmp_path / "plain.nii").read_bytes()
    path = tmp_path / "case.nii.gz"
    path.write_bytes(gzip.compress(plain[:-100]))
    with pytest.raises(MisError, match="complete NIfTI file"):
        read_volume(path)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\0" * 400, b"\x1f\x8b" + b"\xff" * 400])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.txt"])
def test_something_else_than_nifti_is_named(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MisError, match=f"{name} must be a complete NIfTI file"):
        read_volume(path)


def test_a_byte_that_has_changed_is_noticed(tmp_path, voxels):
    path = save(voxels, tmp_path / "case.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum over the content
    path.write_bytes(bytes(content))
    with pytest.raises(MisError, match="complete NIfTI file"):
        read_volume(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(MisError, match=r"none\.nii must be"):
        read_volume(tmp_path / "none.nii")
