import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.data.layouts.msd import MSD_REGIONS
from mis.data.records.preprocess import filled, find_brain, region_bits, region_channels, standardise

MODALITIES = 4


def head(seed=0, shape=(6, 7, 8)):
    """Values above 0 in a box, air around it: (modality, x, y, z)."""
    image = np.zeros((MODALITIES, *shape), np.float32)
    image[:, 1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).uniform(10, 900, (MODALITIES, 4, 5, 6))
    return image


def values(seed=0):
    return np.random.default_rng(seed).uniform(10, 900, (120, MODALITIES)).astype(np.float32)


# ---- Standardising ----


def test_each_modality_has_mean_0_and_variance_1_over_the_brain():
    result = standardise(values())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=0), 1, atol=1e-5)


def test_by_hand():
    assert standardise(np.array([[1], [3]], np.float32)).ravel().tolist() == [-1, 1]
    # A voxel that is 0 in one modality alone is brain: its 0 counts.
    assert standardise(np.array([[0, 1], [2, 3]], np.float32)).tolist() == [[-1, -1], [1, 1]]


def test_the_scanner_s_units_do_not_matter():
    scaled = values() * np.array([0.1, 1, 7, 30], np.float32) + np.array([0.5, 1, 2, 3], np.float32)
    np.testing.assert_allclose(standardise(scaled), standardise(values()), atol=1e-4)


def test_standardising_twice_changes_nothing():
    once = standardise(values())
    np.testing.assert_allclose(standardise(once), once, atol=1e-5)


def test_a_constant_modality_becomes_0_and_no_brain_stays_none():
    constant = values()
    constant[:, 2] = 5
    assert not standardise(constant)[:, 2].any()
    assert standardise(constant)[:, 1].any()
    assert standardise(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_the_values_themselves_are_left_alone():
    mine = values()
    standardise(mine)
    np.testing.assert_array_equal(mine, values())


# ---- The brain ----


def test_the_box_is_the_smallest_that_holds_the_brain():
    image = head()
    brain = find_brain(image, None, crop=True)
    assert (brain.start, brain.mask.shape, brain.mask.all()) == ((1, 1, 1), (4, 5, 6), True)
    np.testing.assert_array_equal(np.moveaxis(brain.image, -1, 0), image[:, 1:-1, 1:-1, 1:-1])
    assert brain.label is None


def test_without_cropping_the_box_is_the_grid():
    image = head()
    brain = find_brain(image, None, crop=False)
    assert (brain.start, brain.mask.shape) == ((0, 0, 0), (6, 7, 8))
    np.testing.assert_array_equal(np.moveaxis(brain.image, -1, 0), image)


def test_a_voxel_that_any_modality_has_is_brain():
    image = np.zeros((MODALITIES, 3, 3, 3), np.int16)
    image[2, 1, 2, 0] = 7
    brain = find_brain(image, None, crop=True)
    assert (brain.start, brain.mask.shape, brain.values.tolist()) == ((1, 2, 0), (1, 1, 1), [[0, 0, 7, 0]])


def test_what_a_label_marks_outside_the_brain_is_kept():
    label = np.zeros((6, 7, 8), np.uint8)
    label[5, 6, 7] = 3
    brain = find_brain(head(), label, crop=True)
    assert (brain.start, brain.mask.shape) == ((1, 1, 1), (5, 6, 7))
    assert (brain.label.sum(), brain.label[-1, -1, -1], brain.mask[-1, -1, -1]) == (3, 3, False)


def test_an_empty_image_has_one_voxel_of_air():
    brain = find_brain(np.zeros((MODALITIES, 3, 3, 3), np.float32), None, crop=True)
    assert (brain.mask.shape, brain.mask.any(), brain.values.shape) == ((1, 1, 1), False, (0, 4))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_the_order_of_memory_and_the_type_do_not_matter(dtype):
    image = np.rint(head() / 4).astype(dtype)
    expected = find_brain(image.astype(np.float32), None, crop=True)
    for other in (np.asfortranarray(image), image[:, ::-1][:, ::-1], image):
        brain = find_brain(other, None, crop=True)
        np.testing.assert_array_equal(brain.values, expected.values)
        np.testing.assert_array_equal(brain.mask, expected.mask)


@given(seed=st.integers(0, 99))
def test_values_fill_the_mask_in_its_order(seed):
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 3, (4, 5, 6, 2))
    mask = volume.any(axis=-1)
    np.testing.assert_array_equal(filled(mask, volume[mask]), volume)


# ---- Regions ----


def channels(label, regions=MSD_REGIONS):
    return region_channels(region_bits(label, regions), range(len(regions)))


def test_regions_of_each_label_by_hand():
    # WT, TC, ET of background, edema, non-enhancing, enhancing
    expected = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    result = channels(np.array([0, 1, 2, 3], np.uint8))
    assert (result.dtype, result.tolist()) == (np.uint8, expected)
    brats = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
    assert channels(np.array([0, 2, 1, 4], np.uint8), brats).tolist() == expected


@given(seed=st.integers(0, 99))
def test_regions_are_nested(seed):
    label = np.random.default_rng(seed).integers(0, 4, (3, 4, 5)).astype(np.uint8)
    whole, core, enhancing = np.moveaxis(channels(label), -1, 0)
    assert (whole >= core).all()
    assert (core >= enhancing).all()


def test_some_of_the_regions_are_taken_by_their_bits():
    bits = region_bits(np.array([0, 1, 2, 3], np.uint8), MSD_REGIONS)
    assert region_channels(bits, [2, 0]).tolist() == [[0, 0], [0, 1], [0, 1], [1, 1]]
