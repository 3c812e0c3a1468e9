from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from mis.data.check.integrity import examine, load_case, source_sha256
from mis.data.layouts.recognise import read_data
from mis.data.records.preprocess import region_bits
from mis.errors import MisError
from mis.params.data import LAYOUTS


def test_a_case_is_loaded_as_it_is_in_its_files(tiny, params):
    for case in tiny.cases:
        examined = load_case(case, tiny, params.data)
        image, label = nib.load(case.images[0]), nib.load(case.label)
        brain, box = examined.brain, examined.geometry.box
        assert (brain.values.dtype, brain.label.dtype) == (np.float32, np.uint8)
        voxels = image.get_fdata(dtype=np.float32)
        np.testing.assert_array_equal(brain.image, voxels[box])
        np.testing.assert_array_equal(brain.label, np.asarray(label.dataobj)[box])
        assert np.count_nonzero(brain.image) == np.count_nonzero(voxels), "nothing lies outside of the box"
        np.testing.assert_array_equal(examined.geometry.affine, image.affine)
        assert examined.findings == ()
        assert examined.sha256 == source_sha256(case)


def test_the_whole_grid_is_kept_where_it_is_asked_for(tiny, params):
    case = tiny.cases[0]
    examined = load_case(case, tiny, params.override({"data.crop": "none"}).data)
    np.testing.assert_array_equal(examined.brain.image, nib.load(case.images[0]).get_fdata(dtype=np.float32))


def test_an_unlabelled_case_is_examined_and_not_loaded(tiny, params):
    assert examine(tiny.unlabelled[0], tiny, params.data).findings == ()
    with pytest.raises(MisError, match="case BRATS_009 must have a label"):
        load_case(tiny.unlabelled[0], tiny, params.data)


def test_a_case_with_an_error_is_refused_with_the_way_to_all_of_them(tiny, params, tmp_path):
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((16, 16, 15), np.uint8), np.eye(4)), label)
    with pytest.raises(MisError, match=r"one shape, got \(16, 16, 15\) and \(16, 16, 16\) .*python -m mis.data check"):
        load_case(replace(tiny.cases[0], label=label), tiny, params.data)


@pytest.mark.parametrize("number", range(3))
def test_a_patient_is_the_same_in_every_layout(layout_roots, params, number):
    """Modalities in one order, the same regions, the same place: whatever the files are called."""
    found = []
    for layout in LAYOUTS:
        data = read_data(layout_roots[layout])
        examined = load_case(data.cases[number], data, params.data)
        found.append((examined, region_bits(examined.brain.label, data.regions)))
    (first, bits), *others = found
    assert set(np.unique(bits)) >= {0, 1, 3}, "background, edema, core; not every tumour enhances"
    for other, its_bits in others:
        np.testing.assert_array_equal(other.brain.values, first.brain.values)
        np.testing.assert_array_equal(other.brain.mask, first.brain.mask)
        np.testing.assert_array_equal(its_bits, bits)
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
    expected = load_case(tiny.cases[0], tiny, params.data)
    examined = load_case(rewritten(tiny.cases[0], tmp_path, same, dtype), tiny, params.data)
    np.testing.assert_array_equal(examined.brain.values, expected.brain.values)
    np.testing.assert_array_equal(examined.brain.label, expected.brain.label)
    assert examined.content == expected.content
    assert examined.sha256 != expected.sha256


def test_scl_slope_and_scl_inter_are_applied(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, lambda voxels, affine: (voxels * 2.0, affine), np.int16, slope=(0.5, 0.0))
    stored = nib.load(case.label).dataobj
    assert (stored.slope, stored.inter) == (0.5, 0)
    expected, examined = load_case(tiny.cases[0], tiny, params.data), load_case(case, tiny, params.data)
    np.testing.assert_array_equal(examined.brain.values, expected.brain.values)
    np.testing.assert_array_equal(examined.brain.label, expected.brain.label)


@pytest.mark.parametrize("axes", [(0,), (0, 1), (2,)])
def test_another_orientation_is_brought_to_the_same_brain(tiny, params, tmp_path, axes):
    def flip(voxels, affine):
        flipped = affine.copy()
        for axis in axes:
            flipped[:3, 3] += flipped[:3, axis] * (voxels.shape[axis] - 1)
            flipped[:3, axis] *= -1
        return np.flip(voxels, axes), flipped

    case = rewritten(tiny.cases[0], tmp_path, flip)
    expected, examined = load_case(tiny.cases[0], tiny, params.data), load_case(case, tiny, params.data)
    np.testing.assert_array_equal(examined.brain.values, expected.brain.values)
    np.testing.assert_array_equal(examined.brain.label, expected.brain.label)
    back = examined.geometry.to_file(examined.brain.label)
    np.testing.assert_array_equal(back, np.asarray(nib.load(case.label).dataobj))


def test_another_order_of_axes_is_brought_to_the_same_brain(tiny, params, tmp_path):
    def turn(voxels, affine):
        return np.moveaxis(voxels, (0, 1, 2), (1, 2, 0)), affine[:, [2, 0, 1, 3]]

    case = rewritten(tiny.cases[0], tmp_path, turn)
    expected, examined = load_case(tiny.cases[0], tiny, params.data), load_case(case, tiny, params.data)
    np.testing.assert_array_equal(examined.brain.values, expected.brain.values)
    np.testing.assert_array_equal(
        examined.geometry.to_file(examined.brain.label), np.asarray(nib.load(case.label).dataobj)
    )


def larger_voxels(voxels, affine):
    return voxels, affine @ np.diag([2.0, 1, 1, 1])


def test_another_spacing_is_resampled(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, larger_voxels)
    examined = load_case(case, tiny, params.data)
    assert examined.geometry.grid == (32, 16, 16)
    assert set(np.unique(examined.brain.label)) <= {0, 1, 2, 3}
    ones = load_case(tiny.cases[0], tiny, params.data)
    assert np.count_nonzero(examined.brain.label) == 2 * np.count_nonzero(ones.brain.label)
    back = examined.geometry.to_file(examined.brain.label)
    np.testing.assert_array_equal(back, np.asarray(nib.load(case.label).dataobj))


def test_another_spacing_is_refused_where_it_shall_be(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, larger_voxels)
    refuse = params.override({"data.other_spacing": "refuse"}).data
    (finding,) = examine(case, tiny, refuse).findings
    assert (finding.rule, finding.value) == ("spacing", "2 x 1 x 1 mm, not 1 x 1 x 1 mm")
    assert examine(tiny.cases[0], tiny, refuse).usable


def test_a_trailing_axis_of_length_1_is_passed_over(tiny, params, tmp_path):
    case = rewritten(tiny.cases[0], tmp_path, lambda voxels, affine: (voxels[..., None], affine))
    np.testing.assert_array_equal(
        load_case(case, tiny, params.data).brain.label, load_case(tiny.cases[0], tiny, params.data).brain.label
    )
