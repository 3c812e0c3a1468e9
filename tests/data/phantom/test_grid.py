import numpy as np
import pytest

from mis.data.phantom.grid import Grid, inside_ellipsoid, ramp, smooth_field


def test_a_voxel_is_1_mm_in_a_volume_of_brats_and_the_box_lies_in_its_middle():
    grid = Grid((240, 240, 155))
    assert grid.voxel_mm == 1
    assert grid.box == (slice(42, 197), slice(25, 215), slice(0, 155))
    assert grid.box_shape == (155, 190, 155)


def test_the_tightest_axis_sets_the_voxel():
    grid = Grid((31, 190, 155))
    assert grid.voxel_mm == 5
    assert grid.box_shape == (31, 38, 31)


def test_coordinates_are_mm_from_the_middle_and_turn_about_z():
    grid = Grid((31, 38, 31))
    straight, turned = grid.coordinates(0), grid.coordinates(np.pi / 2)
    assert straight[:, 15, 0, 30].tolist() == [0, -92.5, 75]
    assert turned[:, 15, 0, 30] == pytest.approx([92.5, 0, 75], abs=1e-4)


def test_what_is_pasted_lies_in_the_box_and_nowhere_else():
    grid = Grid((20, 40, 20))
    volume = grid.paste(np.ones((*grid.box_shape, 2), np.uint8))
    assert volume.shape == (20, 40, 20, 2)
    assert volume[grid.box].all()
    assert volume.sum() == 2 * np.prod(grid.box_shape)


def test_an_ellipsoids_border_is_at_its_semi_axes():
    points = np.array([[3, 1, 1, 5], [0, 4, 0, 0], [0, 0, 0, 0]], np.float32)
    inside = inside_ellipsoid(points, (1, 0, 0), (2, 4, 8))
    assert inside[:2] == pytest.approx([0, 0], abs=1e-4)
    assert inside[2] > 0
    assert inside[3] == pytest.approx(-2, abs=1e-4)


def test_a_voxel_on_the_border_is_half_inside():
    distance = np.array([-9, -1, 0, 0.5, 1, 9], np.float32)
    assert ramp(distance, 1).tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_a_smooth_field_has_mean_0_and_standard_deviation_1_and_is_smooth():
    field = smooth_field(Grid((96, 96, 80)), 8, np.random.default_rng(0))
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=0.05)
    assert field.std() == pytest.approx(1, abs=0.05)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 1.5
