import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest

from mis.data.volumes import read_image
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
    path = save(voxels.astype(dtype), tmp_path / name)
    image = read_image(path)
    assert (image.voxels.dtype, image.affine.dtype) == (dtype, np.float64)
    np.testing.assert_array_equal(image.voxels, voxels.astype(dtype))
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert image.spacing_mm == (2, 1, 3)
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_slope_and_intercept_are_applied(tmp_path):
    path = tmp_path / "a.nii"
    save(np.array([[[0, 1, 2]]], dtype=np.int16), path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.5, -3.0], "<f4").tobytes()  # scl_slope and scl_inter of NIfTI-1
    path.write_bytes(bytes(content))
    assert read_image(path).voxels.ravel().tolist() == [-3.0, -2.5, -2.0]


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
        read_image(path)
    assert f"{path} must be a complete NIfTI file" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, 1, 100, 347, 348, 352, 353, -400, -2, -1])
def test_a_plain_file_that_is_cut_short_is_named(tmp_path, voxels, size):
    path = save(voxels, tmp_path / "case.nii")
    cut(path, size)
    with pytest.raises(MisError) as error:
        read_image(path)
    assert f"{path} must be a complete NIfTI file" in str(error.value)


def test_a_compressed_file_of_a_file_that_is_cut_short_is_named(tmp_path, voxels):
    plain = save(voxels, tmp_path / "plain.nii").read_bytes()
    path = tmp_path / "case.nii.gz"
    path.write_bytes(gzip.compress(plain[:-100]))
    with pytest.raises(MisError, match="complete NIfTI file"):
        read_image(path)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\0" * 400, b"\x1f\x8b" + b"\xff" * 400])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.txt"])
def test_something_else_than_nifti_is_named(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MisError, match=f"{name} must be a complete NIfTI file"):
        read_image(path)


def in_two(plain):
    return gzip.compress(plain[:1000]) + gzip.compress(plain[1000:])


def with_zeros(plain):
    return gzip.compress(plain) + b"\0" * 512  # as tapes pad


@pytest.mark.parametrize("pack", [in_two, with_zeros])
def test_what_gzip_takes_is_read(tmp_path, voxels, pack):
    plain = save(voxels, tmp_path / "plain.nii")
    packed = tmp_path / "case.nii.gz"
    packed.write_bytes(pack(plain.read_bytes()))
    np.testing.assert_array_equal(read_image(packed).voxels, read_image(plain).voxels)


@pytest.mark.parametrize("length", [0, 100, 2**32 - 1])
def test_a_length_that_is_not_the_files_is_noticed(tmp_path, voxels, length):
    path = save(voxels, tmp_path / "case.nii.gz")
    path.write_bytes(path.read_bytes()[:-4] + length.to_bytes(4, "little"))
    with pytest.raises(MisError, match="complete NIfTI file"):
        read_image(path)


def test_a_byte_that_has_changed_is_noticed(tmp_path, voxels):
    path = save(voxels, tmp_path / "case.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum over the content
    path.write_bytes(bytes(content))
    with pytest.raises(MisError, match="complete NIfTI file"):
        read_image(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(MisError, match=r"none\.nii must be"):
        read_image(tmp_path / "none.nii")


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_that_are_no_real_numbers_are_named(tmp_path, dtype):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), dtype), AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(MisError, match="not real numbers"):
        read_image(tmp_path / "a.nii.gz")


def test_what_is_compressed_is_known_by_its_content(tmp_path, voxels):
    path = save(voxels, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(path.rename(tmp_path / "a.nii")).voxels, voxels)


def test_both_byte_orders_and_both_versions_are_read(tmp_path, voxels):
    for kind, order in ((nib.Nifti1Image, "<"), (nib.Nifti1Image, ">"), (nib.Nifti2Image, "<"), (nib.Nifti2Image, ">")):
        header = (nib.Nifti1Header if kind is nib.Nifti1Image else nib.Nifti2Header)(endianness=order)
        nib.save(kind(voxels.astype(f"{order}i2"), AFFINE, header), tmp_path / "a.nii.gz")
        image = read_image(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(image.voxels, voxels)
        np.testing.assert_array_equal(image.affine, AFFINE)


def test_an_affine_that_places_nothing_is_named(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header["srow_x"] = image.header["srow_y"] = 0
    image.header["sform_code"] = 1
    path = tmp_path / "a.nii"
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    content[280:312] = bytes(32)  # srow_x and srow_y of NIfTI-1
    path.write_bytes(bytes(content))
    with pytest.raises(MisError, match="places no voxel"):
        read_image(path)
