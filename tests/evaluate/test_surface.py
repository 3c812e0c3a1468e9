import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.evaluate.surface import CORNERS, pooled_hausdorff_mm, robust_hausdorff_mm, surface_areas

few = settings(max_examples=30, deadline=None)
BOTH = pytest.mark.parametrize("distance", [robust_hausdorff_mm, pooled_hausdorff_mm])


def ball(centre, radius, shape=(24, 24, 24)):
    grid = np.stack(np.meshgrid(*(np.arange(edge) for edge in shape), indexing="ij"), axis=-1)
    return np.linalg.norm(grid - np.array(centre), axis=-1) <= radius


def code_of(*corners):
    return sum(1 << CORNERS.index(corner) for corner in corners)


def test_areas_of_cubes_by_hand():
    areas = surface_areas((1, 1, 1))
    assert areas[0] == areas[255] == 0
    # One corner: a triangle of edges sqrt(1/2); a face: 1; an edge: a rectangle of 1 x sqrt(1/2).
    assert areas[code_of((0, 0, 0))] == pytest.approx(np.sqrt(3) / 8)
    assert areas[code_of((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))] == pytest.approx(1)
    assert areas[code_of((1, 0, 1), (1, 1, 1))] == pytest.approx(np.sqrt(0.5))
    # A face between voxels of 2 x 3 x 5 mm, across x.
    assert surface_areas((2, 3, 5))[code_of((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))] == pytest.approx(15)


def test_every_cube_has_a_surface_and_the_same_as_its_complement():
    areas = surface_areas((1, 2, 3))
    assert (areas[1:255] > 0).all()
    np.testing.assert_allclose(areas, areas[::-1])


@BOTH
def test_a_shift_is_its_length_at_most(distance):
    first, second = ball((10, 12, 12), 6), ball((13, 12, 12), 6)
    assert 2 < distance(first, second, (1, 1, 1)) <= 3
    assert distance(first, first, (1, 1, 1)) == 0


@BOTH
@given(seed=st.integers(0, 999))
@few
def test_it_is_symmetric_and_scales_with_the_voxels(distance, seed):
    rng = np.random.default_rng(seed)
    first, second = (ball(rng.integers(6, 16, 3), rng.integers(2, 6)) for _ in range(2))
    there = distance(first, second, (1, 1.5, 2))
    assert there == pytest.approx(distance(second, first, (1, 1.5, 2)))
    assert distance(first, second, (2, 3, 4)) == pytest.approx(2 * there)
    moved = [np.roll(mask, 2, axis=(0, 1, 2)) for mask in (first, second)]
    assert distance(*moved, (1, 1.5, 2)) == pytest.approx(there)
    turned = [mask.transpose(2, 0, 1) for mask in (first, second)]
    assert distance(*turned, (2, 1, 1.5)) == pytest.approx(there)


@BOTH
def test_an_empty_mask_is_infinitely_far(distance):
    empty, full = np.zeros((8, 8, 8), bool), ball((4, 4, 4), 2, (8, 8, 8))
    for pair in ((empty, full), (full, empty), (empty, empty)):
        assert distance(*pair, (1, 1, 1)) == np.inf


@BOTH
def test_a_mask_at_the_border_has_a_surface_there(distance):
    whole = np.ones((6, 6, 6), bool)
    cut = whole.copy()
    cut[5] = False
    assert distance(whole, cut, (1, 1, 1)) == 1


def test_two_single_voxels_by_hand():
    first, second = np.zeros((12, 5, 5), bool), np.zeros((12, 5, 5), bool)
    first[2, 2, 2] = second[7, 2, 2] = True
    assert pooled_hausdorff_mm(first, second, (2, 1, 1)) == 10
    # The 8 corners of a voxel have the same area: 4 of them are 5 voxels away and 4 are 4.
    assert robust_hausdorff_mm(first, second, (1, 1, 1)) == 5
    assert robust_hausdorff_mm(first, second, (1, 1, 1), percent=40) == 4
