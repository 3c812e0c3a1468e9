import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.data.layouts import MSD_REGIONS
from mis.data.preprocess import fit_grid, region_channels, standardise, target_regions

axis = st.integers(min_value=1, max_value=20)


def brain(seed=0, shape=(6, 7, 8, 4)):
    """Values above 0 in a box, air around it."""
    image = np.zeros(shape, np.float32)
    image[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).uniform(10, 900, (4, 5, 6, 4))
    return image


# ---- Standardising ----


def test_each_modality_has_mean_0_and_variance_1_over_the_brain_and_air_stays_0():
    image = brain()
    result = standardise(image)
    inside = image.any(axis=-1)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[inside].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(result[inside].std(axis=0), 1, atol=1e-6)
    assert not result[~inside].any()


def test_by_hand():
    image = np.array([0, 1, 3, 0], np.float32).reshape(4, 1, 1, 1)
    assert standardise(image).ravel().tolist() == [0, -1, 1, 0]


def test_a_voxel_that_is_0_in_one_modality_alone_is_brain():
    image = np.array([[0, 0], [0, 1], [2, 3]], np.float32).reshape(3, 1, 1, 2)
    assert standardise(image).reshape(3, 2).tolist() == [[0, 0], [-1, -1], [1, 1]]


def test_the_scanner_s_units_and_the_amount_of_air_do_not_matter():
    image = brain()
    scaled = np.where(image.any(axis=-1, keepdims=True), image * [0.1, 1, 7, 30] + [0.5, 1, 2, 3], 0)
    np.testing.assert_allclose(standardise(scaled.astype(np.float32)), standardise(image), atol=1e-4)
    more_air = np.pad(image, [(3, 3), (0, 5), (2, 0), (0, 0)])
    np.testing.assert_array_equal(standardise(more_air)[3:-3, :-5, 2:], standardise(image))


def test_standardising_twice_changes_nothing():
    once = standardise(brain())
    np.testing.assert_allclose(standardise(once), once, atol=1e-5)


def test_a_constant_modality_and_an_empty_image_become_0():
    image = brain()
    image[..., 2] = np.where(image.any(axis=-1), 5, 0)
    result = standardise(image)
    assert not result[..., 2].any()
    assert result[..., 1].any()
    assert not standardise(np.zeros((2, 2, 2, 4), np.float32)).any()


def test_the_image_itself_is_left_alone():
    image = brain()
    standardise(image)
    np.testing.assert_array_equal(image, brain())


# ---- The grid ----


@given(shape=st.tuples(axis, axis, axis), multiple=st.integers(min_value=1, max_value=9))
def test_padding_comes_to_the_next_multiple_and_loses_nothing(shape, multiple):
    array = np.random.default_rng(0).integers(1, 9, shape)
    padded = fit_grid(array, multiple, "pad")
    for before, after in zip(shape, padded.shape, strict=True):
        assert after % multiple == 0
        assert before <= after < before + multiple
    assert padded.sum() == array.sum()
    begin = [(after - before) // 2 for before, after in zip(shape, padded.shape, strict=True)]
    inner = tuple(slice(first, first + size) for first, size in zip(begin, shape, strict=True))
    np.testing.assert_array_equal(padded[inner], array)


@given(shape=st.tuples(axis, axis, axis), multiple=st.integers(min_value=1, max_value=9))
def test_cropping_comes_to_the_multiple_below_and_keeps_the_middle(shape, multiple):
    array = np.arange(np.prod(shape)).reshape(shape)
    if min(shape) < multiple:
        with pytest.raises(ValueError, match=f"multiple of {multiple}"):
            fit_grid(array, multiple, "crop")
        return
    cropped = fit_grid(array, multiple, "crop")
    less = [size % multiple for size in shape]
    inner = tuple(slice(gone - gone // 2, size - gone // 2) for gone, size in zip(less, shape, strict=True))
    np.testing.assert_array_equal(cropped, array[inner])
    assert cropped.shape == tuple(size - gone for size, gone in zip(shape, less, strict=True))


@given(shape=st.tuples(axis, axis, axis), multiple=st.integers(min_value=1, max_value=9))
def test_cropping_undoes_padding_where_it_fits_the_multiple(shape, multiple):
    array = np.arange(np.prod(shape)).reshape(shape)
    for how in ("pad", "crop"):
        fitted = fit_grid(fit_grid(array, multiple, "pad"), multiple, how)
        np.testing.assert_array_equal(fitted, fit_grid(array, multiple, "pad"))


def test_155_slices_become_2_to_minus_1_as_in_the_paper():
    slices = np.arange(155).reshape(1, 1, 155).repeat(8, 0).repeat(8, 1)
    assert fit_grid(slices, 8, "crop")[0, 0].tolist() == list(range(2, 154))
    assert fit_grid(slices, 8, "pad")[0, 0].tolist() == [0, 0, *range(155), 0, 0, 0]


def test_further_axes_are_left_alone():
    array = np.ones((5, 5, 5, 3, 2))
    assert fit_grid(array, 4, "pad").shape == (8, 8, 8, 3, 2)
    assert fit_grid(array, 4, "crop").shape == (4, 4, 4, 3, 2)


# ---- Regions ----


def test_regions_of_each_label_by_hand():
    label = np.array([0, 1, 2, 3], np.uint8).reshape(4, 1, 1)
    channels = region_channels(label, MSD_REGIONS)
    assert channels.dtype == np.uint8
    # WT, TC, ET of background, edema, non-enhancing, enhancing
    assert channels.reshape(4, 3).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


@given(seed=st.integers(0, 99))
def test_regions_are_nested(seed):
    label = np.random.default_rng(seed).integers(0, 4, (3, 4, 5)).astype(np.uint8)
    whole, core, enhancing = np.moveaxis(region_channels(label, MSD_REGIONS), -1, 0)
    assert (whole >= core).all()
    assert (core >= enhancing).all()


def test_the_target_is_all_regions_or_the_whole_tumour():
    assert list(target_regions(MSD_REGIONS, "regions").items()) == list(MSD_REGIONS.items())
    assert target_regions(MSD_REGIONS, "whole_tumor") == {"WT": (1, 2, 3)}
