from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mis.data.integrity import check_image, check_label, load_case
from mis.errors import MisError

PATH = Path("imagesTr/BRATS_001.nii.gz")
SHAPE = (4, 5, 6)


def refused(check, array, data):
    with pytest.raises(MisError) as error:
        check(array, PATH, data)
    assert str(error.value).startswith(str(PATH))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_case_is_loaded_as_it_is_in_its_files(tiny):
    for case in tiny.cases:
        volume = load_case(case, tiny)
        image, label = nib.load(case.images[0]), nib.load(case.label)
        assert (volume.image.dtype, volume.label.dtype) == (np.float32, np.uint8)
        np.testing.assert_array_equal(volume.image, image.get_fdata(dtype=np.float32))
        np.testing.assert_array_equal(volume.label, np.asarray(label.dataobj))
        np.testing.assert_array_equal(volume.affine, image.affine)


def test_an_unlabelled_case_is_refused(tiny):
    with pytest.raises(MisError, match="case BRATS_009 must have a label"):
        load_case(tiny.unlabelled[0], tiny)


def test_a_label_of_another_case_s_shape_is_refused(tiny, tmp_path):
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((16, 16, 15), np.uint8), np.eye(4)), label)
    with pytest.raises(MisError, match=r"label\.nii\.gz must .* BRATS_001.* \(16, 16, 16\), got \(16, 16, 15\)"):
        load_case(replace(tiny.cases[0], label=label), tiny)


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 4, 1), (4,)])
def test_an_image_that_is_not_4d_is_refused(tiny, shape):
    message = refused(check_image, np.zeros(shape, np.float32), tiny)
    assert "four axes (x, y, z, modality)" in message
    assert f"got {len(shape)} in shape {shape}" in message


@pytest.mark.parametrize("count", [1, 3, 5])
def test_an_image_that_has_not_four_modalities_is_refused(tiny, count):
    message = refused(check_image, np.zeros((*SHAPE, count), np.float32), tiny)
    assert "FLAIR, T1w, T1gd, T2w" in message
    assert f"got {count} of them" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite_is_refused_with_the_first_such_voxel(tiny, value):
    image = np.zeros((*SHAPE, 4), np.float32)
    image[1, 2, 3, 0] = image[3, 0, 0, 1] = value
    assert f"got {value} at (1, 2, 3, 0) and 2 such" in refused(check_image, image, tiny)


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (4, 5)])
def test_a_label_that_is_not_3d_is_refused(tiny, shape):
    assert f"got {len(shape)} in shape {shape}" in refused(check_label, np.zeros(shape, np.float32), tiny)


@pytest.mark.parametrize("value", [4, -1, 255, 0.5, 2.999])
def test_a_label_outside_0_to_3_is_refused_with_its_value(tiny, value):
    label = np.zeros(SHAPE, np.float32)
    label[0, 0, 0] = value
    message = refused(check_label, label, tiny)
    assert "among [0, 1, 2, 3]" in message
    assert f"got {value:g} as well" in message


def test_a_label_that_is_nan_is_refused(tiny):
    label = np.zeros(SHAPE, np.float32)
    label[0, 1, 2] = np.nan
    assert "got nan at (0, 1, 2)" in refused(check_label, label, tiny)


def test_what_is_right_passes(tiny):
    check_image(np.ones((*SHAPE, 4), np.float32), PATH, tiny)
    check_label(np.arange(120, dtype=np.float32).reshape(SHAPE) % 4, PATH, tiny)
    check_label(np.zeros(SHAPE, np.float32), PATH, tiny)
