import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.data.geometry import Geometry, centred_start, take_window
from tests.data.grids import to_file


def fit(size, target):
    """Return where a window of `target` voxels begins in the middle of a box."""
    return tuple(centred_start(n, m) for n, m in zip(size, target, strict=True))


axis = st.integers(1, 12)
shapes = st.tuples(axis, axis, axis)
few = settings(deadline=None)

ORIENTATIONS = [
    "".join(codes) for order in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*order)
]


def affine_of(orientation, spacing=(1.0, 1.0, 1.0), origin=(3.0, -7.0, 11.0)):
    """Return the affine of a grid whose axes go towards these sides, with these edges in (x, y, z)."""
    ornt = nib.orientations.axcodes2ornt(orientation)
    affine = np.zeros((4, 4))
    for column, (target, flip) in enumerate(ornt):
        affine[int(target), column] = flip * spacing[int(target)]
    affine[:3, 3], affine[3, 3] = origin, 1
    return affine


def volume_of(shape):
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_to_ras_and_back(orientation):
    """48 of them; each voxel keeps its place in millimetres."""
    volume, affine = volume_of((3, 4, 5)), affine_of(orientation)
    geometry = Geometry.of(volume.shape, affine)
    ras = geometry.to_grid(volume, nearest=True)
    assert nib.aff2axcodes(geometry.box_affine) == ("R", "A", "S")
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        place = affine @ (*index, 1)
        inside = np.rint(np.linalg.inv(geometry.box_affine) @ place)[:3].astype(int)
        assert ras[tuple(inside)] == volume[index]
    np.testing.assert_array_equal(geometry.to_file(ras), volume)


@given(shape=shapes, orientation=st.sampled_from(ORIENTATIONS), data=st.data())
@few
def test_a_box_goes_back_to_its_place(shape, orientation, data):
    volume = volume_of(shape)
    whole = Geometry.of(shape, affine_of(orientation))
    ras = whole.to_grid(volume, nearest=True)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in ras.shape)
    size = tuple(data.draw(st.integers(1, n - first)) for n, first in zip(ras.shape, start, strict=True))
    geometry = replace(whole, start=start, size=size)
    back = geometry.to_file(ras[geometry.box])
    assert back.shape == shape
    assert set(back[back > 0]) == set(ras[geometry.box].ravel())
    np.testing.assert_array_equal(back[back > 0], volume[back > 0])
    place = geometry.box_affine @ (0, 0, 0, 1)
    np.testing.assert_allclose(place, whole.box_affine @ (*start, 1))


@given(shape=shapes, orientation=st.sampled_from(ORIENTATIONS), more=st.integers(0, 5))
@few
def test_what_a_network_says_of_a_case_goes_back_to_the_file(shape, orientation, more):
    volume = volume_of(shape)
    geometry = Geometry.of(shape, affine_of(orientation))
    ras = geometry.to_grid(volume, nearest=True)
    target = tuple(n + more for n in ras.shape)
    seen = take_window(ras, fit(ras.shape, target), target)
    np.testing.assert_array_equal(to_file(geometry, seen), volume)


def test_a_geometry_comes_back_from_json():
    geometry = replace(Geometry.of((3, 4, 5), affine_of("LPS"), (1, 1, 2)), start=(1, 0, 1), size=(2, 4, 1))
    assert Geometry.from_json(geometry.to_json()) == geometry


# ---- Spacing ----


def test_a_linear_image_is_linear_in_millimetres_after_resampling():
    spacing = (1.0, 2.0, 3.0)
    affine = affine_of("RAS", spacing)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (12, 8, 6)), indexing="ij"), axis=-1)
    millimetres = nib.affines.apply_affine(affine, index)
    geometry = Geometry.of((12, 8, 6), affine, (1, 1, 1))
    assert geometry.grid == (12, 16, 18)
    result = geometry.to_grid(millimetres @ (1.0, -2.0, 0.5), nearest=False)
    places = nib.affines.apply_affine(
        geometry.box_affine, np.stack(np.meshgrid(*(np.arange(n) for n in geometry.grid), indexing="ij"), axis=-1)
    )
    inner = (slice(None), slice(2, -2), slice(3, -3))  # beyond the outermost centres there is nothing to go between
    np.testing.assert_allclose(result[inner], (places @ (1.0, -2.0, 0.5))[inner], atol=1e-4)


def test_labels_keep_their_values_and_go_back_exactly_from_a_finer_grid():
    label = np.random.default_rng(0).choice([0, 1, 4], (6, 5, 4)).astype(np.uint8)
    geometry = Geometry.of(label.shape, affine_of("LAS", (2, 2, 3)), (1, 1, 1))
    fine = geometry.to_grid(label, nearest=True)
    assert fine.shape == (12, 10, 12)
    assert fine.dtype == np.uint8
    assert set(np.unique(fine)) == {0, 1, 4}
    np.testing.assert_array_equal(geometry.to_file(fine), label)


def test_the_wanted_spacing_is_that_of_ras():
    """An axial stack may have its thick slices along any axis of the file."""
    geometry = Geometry.of((5, 10, 10), affine_of("SRA", (1, 1, 4)), (1, 1, 1))
    assert geometry.ras_shape == (10, 10, 5)
    assert geometry.grid == (10, 10, 20)


@pytest.mark.parametrize("edge", [1.0000004, 0.9999998, 1.0])
def test_a_spacing_that_was_rounded_is_not_resampled(edge):
    volume = volume_of((6, 6, 6))
    geometry = Geometry.of(volume.shape, affine_of("RAS", (edge, 1, 1)), (1, 1, 1))
    assert np.shares_memory(geometry.to_grid(volume, nearest=False), volume)


# ---- Windows ----


@given(size=shapes, target=shapes)
def test_a_window_keeps_the_middle_and_pads_evenly(size, target):
    volume = volume_of(size)
    start = fit(size, target)
    window = take_window(volume, start, target)
    assert window.shape == target
    for n, m, first in zip(size, target, start, strict=True):
        before, behind = -first, m - n + first  # negative: cut away
        assert abs(before - behind) <= 1
        assert (before <= behind) if m >= n else (-before >= -behind)
    # All that fits is there, once.
    assert np.count_nonzero(window) == np.prod([min(n, m) for n, m in zip(size, target, strict=True)])
    back = take_window(window, tuple(-first for first in start), size)
    np.testing.assert_array_equal(back[back > 0], volume[back > 0])


def test_155_slices_become_2_to_minus_1_as_in_the_paper():
    slices = np.arange(155).reshape(1, 1, 155)
    start = fit((1, 1, 155), (1, 1, 152))
    assert take_window(slices, start, (1, 1, 152)).ravel().tolist() == list(range(2, 154))
    start = fit((1, 1, 155), (1, 1, 160))
    assert take_window(slices + 1, start, (1, 1, 160)).ravel().tolist() == [0, 0, *range(1, 156), 0, 0, 0]


def test_a_window_beside_the_box_is_empty():
    assert not take_window(volume_of((2, 2, 2)), (5, 0, 0), (2, 2, 2)).any()
