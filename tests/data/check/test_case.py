import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from mis.data.check.case import check_case
from mis.data.check.findings import errors
from mis.data.check.fingerprint import files_sha256
from mis.data.check.wording import refused_for_errors
from mis.data.layouts.recognise import read_data
from mis.data.records.preprocess import region_bits
from mis.params.data import LAYOUTS


def usable(case, data, params):
    """Return a case that has no errors."""
    checked = check_case(case, data, params)
    assert checked.usable, checked.findings
    return checked


def test_a_case_is_loaded_as_it_is_in_its_files(tiny, params):
    for case in tiny.cases:
        checked = usable(case, tiny, params.data)
        image, label = nib.load(case.images[0]), nib.load(case.label)
        brain, box = checked.brain, checked.geometry.box
        assert (brain.values.dtype, brain.label.dtype) == (np.float32, np.uint8)
        voxels = image.get_fdata(dtype=np.float32)
        np.testing.assert_array_equal(brain.image, voxels[box])
        np.testing.assert_array_equal(brain.label, np.asarray(label.dataobj)[box])
        assert np.count_nonzero(brain.image) == np.count_nonzero(voxels), "nothing lies outside of the box"
        np.testing.assert_array_equal(checked.geometry.affine, image.affine)
        assert checked.findings == ()
        assert checked.sha256 == files_sha256(case)


def test_the_whole_grid_is_kept_where_it_is_asked_for(tiny, params):
    case = tiny.cases[0]
    checked = usable(case, tiny, params.override({"data.crop": "none"}).data)
    np.testing.assert_array_equal(checked.brain.image, nib.load(case.images[0]).get_fdata(dtype=np.float32))


def test_an_unlabelled_case_is_read_without_a_label(tiny, params):
    checked = usable(tiny.unlabelled[0], tiny, params.data)
    assert checked.findings == ()
    assert checked.brain.label is None


def test_a_case_with_an_error_is_refused_with_the_way_to_all_of_them(tiny, params, tmp_path):
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((16, 16, 15), np.uint8), np.eye(4)), label)
    checked = check_case(replace(tiny.cases[0], label=label), tiny, params.data)
    assert not checked.usable
    error = refused_for_errors(tiny, errors(checked.findings))
    assert re.search(r"one shape, got \(16, 16, 15\) and \(16, 16, 16\) .*python -m mis.data check", str(error))


@pytest.mark.parametrize("number", range(3))
def test_a_patient_is_the_same_in_every_layout(layout_roots, params, number):
    """Modalities in one order, the same regions, the same place: whatever the files are called."""
    found = []
    for layout in LAYOUTS:
        data = read_data(layout_roots[layout])
        checked = usable(data.cases[number], data, params.data)
        found.append((checked, region_bits(checked.brain.label, data.regions)))
    (first, bits), *others = found
    assert set(np.unique(bits)) >= {0, 1, 3}, "background, edema, core; not every tumour enhances"
    for other, other_bits in others:
        np.testing.assert_array_equal(other.brain.values, first.brain.values)
        np.testing.assert_array_equal(other.brain.mask, first.brain.mask)
        np.testing.assert_array_equal(other_bits, bits)
        assert other.geometry == first.geometry
        assert other.content == first.content


def rewritten(case, folder, change, dtype=None, slope=None):
    """Return the case with its files written again, voxels and affine changed."""
    files = []
    for path in case.files:
        image = nib.load(path)
        voxels, affine = change(np.asarray(image.dataobj), image.affine)
        new = nib.Nifti1Image(voxels if dtype is None else voxels.astype(dtype), affine)
        if slope:
            new.header.set_slope_inter(*slope)
        nib.save(new, folder / path.name.replace(".nii", f"_{len(files)}.nii"))
        files.append(folder / path.name.replace(".nii", f"_{len(files)}.nii"))
    return replace(case, images=tuple(files[:-1]), label=files[-1])


def same(voxels, affine):
    return voxels, affine


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16, np.float32, np.float64, ">i2", ">f4"])
def test_the_type_of_the_voxels_does_not_matter(tiny, params, tmp_path, dtype):
    expected = usable(tiny.cases[0], tiny, params.data)
    checked = usable(rewritten(tiny.cases[0], tmp_path, same, dtype), tiny, params.data)
    np.testing.assert_array_equal(checked.brain.values, expected.brain.values)
    np.testing.assert_array_equal(checked.brain.label, expected.brain.label)
    assert checked.content == expected.content
    assert checked.sha256 != expected.sha256


def test_scl_slope_and_scl_inter_are_applied(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, lambda voxels, affine: (voxels * 2.0, affine), np.int16, slope=(0.5, 0.0))
    stored = nib.load(case.label).dataobj
    assert (stored.slope, stored.inter) == (0.5, 0)
    expected, checked = usable(tiny.cases[0], tiny, params.data), usable(case, tiny, params.data)
    np.testing.assert_array_equal(checked.brain.values, expected.brain.values)
    np.testing.assert_array_equal(checked.brain.label, expected.brain.label)


@pytest.mark.parametrize("axes", [(0,), (0, 1), (2,)])
def test_another_orientation_is_brought_to_the_same_brain(tiny, params, tmp_path, axes):
    def flip(voxels, affine):
        flipped = affine.copy()
        for axis in axes:
            flipped[:3, 3] += flipped[:3, axis] * (voxels.shape[axis] - 1)
            flipped[:3, axis] *= -1
        return np.flip(voxels, axes), flipped

    case = rewritten(tiny.cases[0], tmp_path, flip)
    expected, checked = usable(tiny.cases[0], tiny, params.data), usable(case, tiny, params.data)
    np.testing.assert_array_equal(checked.brain.values, expected.brain.values)
    np.testing.assert_array_equal(checked.brain.label, expected.brain.label)
    back = checked.geometry.to_file(checked.brain.label)
    np.testing.assert_array_equal(back, np.asarray(nib.load(case.label).dataobj))


def test_another_order_of_axes_is_brought_to_the_same_brain(tiny, params, tmp_path):
    def turn(voxels, affine):
        return np.moveaxis(voxels, (0, 1, 2), (1, 2, 0)), affine[:, [2, 0, 1, 3]]

    case = rewritten(tiny.cases[0], tmp_path, turn)
    expected, checked = usable(tiny.cases[0], tiny, params.data), usable(case, tiny, params.data)
    np.testing.assert_array_equal(checked.brain.values, expected.brain.values)
    np.testing.assert_array_equal(
        checked.geometry.to_file(checked.brain.label), np.asarray(nib.load(case.label).dataobj)
    )


def larger_voxels(voxels, affine):
    return voxels, affine @ np.diag([2.0, 1, 1, 1])


def test_another_spacing_is_resampled(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, larger_voxels)
    checked = usable(case, tiny, params.data)
    assert checked.geometry.grid == (32, 16, 16)
    assert set(np.unique(checked.brain.label)) <= {0, 1, 2, 3}
    original = usable(tiny.cases[0], tiny, params.data)
    assert np.count_nonzero(checked.brain.label) == 2 * np.count_nonzero(original.brain.label)
    back = checked.geometry.to_file(checked.brain.label)
    np.testing.assert_array_equal(back, np.asarray(nib.load(case.label).dataobj))


def test_another_spacing_is_refused_where_it_shall_be(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, larger_voxels)
    refuse = params.override({"data.other_spacing": "refuse"}).data
    (finding,) = check_case(case, tiny, refuse).findings
    assert (finding.rule, finding.value) == ("spacing", "2 x 1 x 1 mm, not 1 x 1 x 1 mm")
    assert check_case(tiny.cases[0], tiny, refuse).usable


def test_a_trailing_axis_of_length_1_is_passed_over(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, lambda voxels, affine: (voxels[..., None], affine))
    np.testing.assert_array_equal(
        usable(case, tiny, params.data).brain.label, usable(tiny.cases[0], tiny, params.data).brain.label
    )
