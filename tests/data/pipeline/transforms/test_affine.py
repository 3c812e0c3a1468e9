import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from mis.data.pipeline.transforms.affine import AffineParameters, warp
from mis.data.pipeline.transforms.base import Sample
from mis.data.pipeline.transforms.rotate90 import rotate90

few = settings(max_examples=15, deadline=None)
angles = st.tuples(*[st.floats(-180, 180)] * 3)


def case(shape, seed=0):
    """Return an image of a brain in air and a target of three regions, all of them without a symmetry."""
    random = np.random.default_rng(seed)
    image = random.normal(size=(*shape, 4)).astype(np.float32) * inside(shape, [0.4, 0.45, 0.5], 0.4)[..., np.newaxis]
    return image, random.integers(0, 2, (*shape, 3)).astype(np.float32)


def inside(shape, centre, radius):
    """Return an ellipsoid as a mask; centre and radius are shares of the shape."""
    grid = np.indices(shape) / np.reshape(shape, (3, 1, 1, 1)) - np.reshape(centre, (3, 1, 1, 1))
    return (grid**2).sum(axis=0) < radius**2


@tf.function
def graph(image, target, angles_rad, size):
    return warp(Sample.of(image, target), AffineParameters(angles_rad, size))


def warped(image, target, angles_deg, size):
    """Return image and target after a rotation by angles about x, then y, then z, and a change of size."""
    angles_rad = tf.constant(np.deg2rad(angles_deg), tf.float32)
    image, target, brain = graph(tf.constant(image), tf.constant(target), angles_rad, tf.constant(size, tf.float32))
    assert not image.numpy()[~brain.numpy()[..., 0]].any(), "what is not brain is air"
    return image.numpy(), target.numpy()


def test_no_angle_and_no_change_of_size_is_identity_bit_for_bit():
    image, target = case((9, 8, 7))
    moved = warped(image, target, (0, 0, 0), 1)
    assert moved[0].tobytes() == (image + np.float32(0)).tobytes()
    np.testing.assert_array_equal(moved[1], target)


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
@pytest.mark.parametrize("length", [8, 9])
def test_turns_by_90_degrees_are_quarter_turns(axis, plane, quarters, length):
    image, target = case((length,) * 3)
    moved = warped(image, target, 90 * quarters * np.eye(3)[axis], 1)
    np.testing.assert_allclose(moved[0], np.rot90(image, quarters, plane), atol=2e-5)
    np.testing.assert_array_equal(moved[1], np.rot90(target, quarters, plane))


def test_a_turn_about_z_by_90_degrees_is_rotate90():
    image, target = case((8, 8, 5))
    moved = warped(image, target, (0, 0, 90), 1)
    np.testing.assert_allclose(moved[0], rotate90(tf.constant(image), tf.constant(1)), atol=2e-5)
    np.testing.assert_array_equal(moved[1], rotate90(tf.constant(target), tf.constant(1)))


@given(angles_deg=angles, size=st.floats(0.5, 2))
@few
def test_the_interpolation_is_scipys(angles_deg, size):
    shape = (9, 8, 7)
    image, target = case(shape)
    middle = (np.array(shape) - 1) / 2
    forth = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() * size
    positions = (
        np.linalg.inv(forth) @ (np.indices(shape).reshape(3, -1) - middle[:, np.newaxis]) + middle[:, np.newaxis]
    )
    # At a half the nearest voxel is a matter of rounding.
    clear = (np.abs(positions % 1 - 0.5) > 1e-4).all(axis=0)

    def at(volume, order, mode):
        return np.stack(
            [map_coordinates(channel, positions, order=order, mode=mode) for channel in np.moveaxis(volume, -1, 0)], -1
        )

    brain = at((image != 0).any(axis=-1, keepdims=True).astype(np.float32), 0, "grid-constant") > 0
    moved = [volume.reshape(-1, volume.shape[-1])[clear] for volume in warped(image, target, angles_deg, size)]
    np.testing.assert_allclose(moved[0], np.where(brain, at(image, 1, "nearest"), 0)[clear], atol=5e-5)
    np.testing.assert_array_equal(moved[1], at(target, 0, "grid-constant")[clear])
    assert set(np.unique(moved[1])) <= {0, 1}


def blob(shape=(32, 32, 32), centre=(18, 16, 14), radius=8):
    """Return a ball whose edge is two voxels wide in a brain that fills the volume, and where it is above 0.5."""
    distance = np.linalg.norm(np.indices(shape) - np.reshape(centre, (3, 1, 1, 1)), axis=0)
    image = np.clip((radius + 1 - distance) / 2, 0, 1).astype(np.float32)
    return (0.01 + 0.99 * np.stack([image] * 4, -1)), np.stack([image > 0.5] * 3, -1).astype(np.float32)


def centroid(mask):
    return np.argwhere(mask).mean(axis=0)


@given(angles_deg=angles, size=st.floats(0.7, 1.4))
@few
def test_image_and_target_are_moved_alike_and_as_asked_for(angles_deg, size):
    image, target = blob()
    moved_image, moved_target = warped(image, target, angles_deg, size)
    seen, meant = moved_image[..., 0] > 0.5, moved_target[..., 0] > 0
    # The nearest voxel is 0.87 voxels away at most, and over the edge the image falls by half a unit a voxel.
    assert moved_image[meant, 0].min() > 0.5 - 0.45
    assert moved_image[~meant, 0].max() < 0.5 + 0.45
    forth = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() * size
    expected = forth @ (centroid(target[..., 0] > 0) - 15.5) + 15.5
    np.testing.assert_allclose(centroid(meant), expected, atol=0.5)
    np.testing.assert_allclose(centroid(seen), expected, atol=0.3)


@pytest.mark.parametrize("size", [0.7, 0.9, 1.2, 1.4])
def test_the_volume_grows_with_the_cube_of_the_size(size):
    image, target = blob()
    moved_image, moved_target = warped(image, target, (0, 0, 0), size)
    assert moved_target[..., 0].sum() == pytest.approx(size**3 * target[..., 0].sum(), rel=0.04)
    assert (moved_image[..., 0] > 0.5).sum() == pytest.approx(size**3 * (image[..., 0] > 0.5).sum(), rel=0.04)


def test_what_comes_from_outside_is_air():
    image, target = np.ones((8, 8, 8, 4), np.float32), np.ones((8, 8, 8, 3), np.float32)
    moved_image, moved_target = warped(image, target, (0, 0, 0), 0.5)
    expected = np.zeros((8, 8, 8), np.float32)
    expected[2:6, 2:6, 2:6] = 1
    np.testing.assert_array_equal(moved_image, np.stack([expected] * 4, -1))
    np.testing.assert_array_equal(moved_target, np.stack([expected] * 3, -1))


def test_there_is_no_halo_of_partial_air():
    image = np.zeros((8, 8, 8, 4), np.float32)
    image[2:6, 2:6, 2:6] = 1
    moved, _ = warped(image, np.zeros((8, 8, 8, 3), np.float32), (0, 0, 20), 1)
    # A voxel whose nearest source is brain has at least half of its weight in brain along each axis.
    assert moved[moved > 0].min() >= 0.5**3
    assert 50 < (moved[..., 0] > 0).sum() < 80
