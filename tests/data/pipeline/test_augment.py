import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from mis.data.pipeline.augment import Change, augment, is_any, sample_change
from mis.data.pipeline.intensity import add_noise, bend, blur, rescale
from mis.data.pipeline.spatial import brain_of
from mis.params.train import AugmentParams

OFF = AugmentParams(
    flip=0.0,
    rotate90=0.0,
    chance=1.0,
    rotate_deg=0.0,
    scale=0.0,
    intensity_shift=0.0,
    intensity_scale=0.0,
    gamma=0.0,
    noise=0.0,
    blur_vox=0.0,
)
FULL = AugmentParams(
    flip=0.5,
    rotate90=0.6,
    chance=0.3,
    rotate_deg=30.0,
    scale=0.2,
    intensity_shift=0.1,
    intensity_scale=0.25,
    gamma=0.4,
    noise=0.1,
    blur_vox=1.0,
)
MOVES = ("flip", "rotate90", "rotate_deg", "scale")
INTENSITIES = ("intensity_shift", "intensity_scale", "gamma", "noise", "blur_vox")
NOTHING = Change(
    quarters=tf.constant(0),
    flips=tf.constant([False] * 3),
    angles_rad=tf.zeros(3),
    size=tf.constant(1.0),
    noise=tf.constant(0.0),
    noise_seed=tf.constant([0, 0], tf.int64),
    blur_vox=tf.constant(0.0),
    factor=tf.ones(4),
    shift=tf.zeros(4),
    gamma=tf.ones(4),
)
FIELD = {
    "flip": "flips",
    "rotate90": "quarters",
    "rotate_deg": "angles_rad",
    "scale": "size",
    "intensity_shift": "shift",
    "intensity_scale": "factor",
    "gamma": "gamma",
    "noise": "noise",
    "blur_vox": "blur_vox",
}
SHAPE = (16, 16, 12)


def changed(params, **values):
    return params.model_copy(update=values)


def only(name, chance=1.0):
    """Return parameters with one change alone, which always happens."""
    value = 1.0 if name in ("flip", "rotate90") else getattr(FULL, name)
    return changed(OFF, chance=chance, **{name: value})


def seed(number):
    return tf.constant([7, number], tf.int64)


def case(shape=SHAPE, modalities=4):
    """Return a brain in air and a tumour of three regions, one in another, off its middle."""
    random = np.random.default_rng(1)
    grid = np.indices(shape) / np.reshape(shape, (3, 1, 1, 1))
    brain, tumour = (
        np.linalg.norm(grid - np.reshape(centre, (3, 1, 1, 1)), axis=0) for centre in ([0.5] * 3, [0.6, 0.45, 0.4])
    )
    image = random.normal(size=(*shape, modalities)) * (brain < 0.45)[..., np.newaxis]
    target = np.stack([tumour < radius for radius in (0.2, 0.15, 0.1)], axis=-1)
    return tf.constant(image, tf.float32), tf.constant(target, tf.float32)


def sampled(params, count=1500, shape=SHAPE):
    """Return what is sampled from as many seeds, each field with the seeds as its first axis."""
    seeds = tf.data.Dataset.range(count).map(lambda number: tf.stack([tf.constant(7, tf.int64), number]))
    batch = next(iter(seeds.map(lambda one: sample_change(params, shape, one)).batch(count)))
    return Change(*(field.numpy() for field in batch))


def through_data(params, numbers, image, target):
    """Return what training sees, (image, target) for each seed, from tf.data in graph mode."""
    numbers = tf.data.Dataset.from_tensor_slices(tf.constant(list(numbers), tf.int64))

    def seen(number):
        own = tf.stack([tf.constant(7, tf.int64), number])
        return augment(image, target, sample_change(params, image.shape[:3], own))

    return numbers.map(seen, num_parallel_calls=2, deterministic=True)


# ---- Whether anything happens ----


def test_nothing_can_happen_without_a_strength_or_without_a_chance():
    assert not is_any(OFF)
    assert not is_any(changed(FULL, flip=0.0, rotate90=0.0, chance=0.0))
    assert is_any(FULL)


@pytest.mark.parametrize("name", [*MOVES, *INTENSITIES])
def test_each_change_alone_can_happen(name):
    assert is_any(only(name))
    assert is_any(only(name, chance=0.0)) == (name in ("flip", "rotate90"))


@pytest.mark.parametrize("params", [OFF, changed(FULL, flip=0.0, rotate90=0.0, chance=0.0)], ids=["strength", "chance"])
def test_without_strength_or_chance_a_case_is_bit_for_bit_itself(params):
    image, target = case()
    for seen_image, seen_target in through_data(params, range(3), image, target):
        assert seen_image.numpy().tobytes() == image.numpy().tobytes()
        assert seen_target.numpy().tobytes() == target.numpy().tobytes()


@pytest.mark.parametrize("name", FIELD)
def test_a_change_without_strength_is_never_sampled_and_leaves_the_others_as_they_were(name):
    full, without = sampled(FULL, count=100), sampled(changed(FULL, **{name: 0.0}), count=100)
    for field, values, others in zip(Change._fields, full, without, strict=True):
        if field == FIELD[name]:
            assert (others == getattr(NOTHING, field).numpy()).all()
            assert (values != others).any()
        else:
            np.testing.assert_array_equal(values, others)


# ---- What is sampled ----


def happened(values, name):
    """Return for each seed whether a change happened."""
    return (values != getattr(NOTHING, FIELD[name]).numpy()).reshape(len(values), -1)


@pytest.mark.parametrize("name", ["rotate_deg", "scale", *INTENSITIES])
def test_the_chance_is_the_share_of_cases_that_are_changed_in_all_axes_or_modalities(name):
    which = happened(getattr(sampled(FULL), FIELD[name]), name)
    assert (which.any(axis=1) == which.all(axis=1)).all()
    assert which.mean() == pytest.approx(FULL.chance, abs=0.05)


def test_changes_happen_independently():
    changes = sampled(FULL)
    names = ["rotate_deg", "scale", *INTENSITIES]
    which = [happened(getattr(changes, FIELD[name]), name)[:, 0] for name in names]
    assert np.abs(np.corrcoef(np.array(which, float)) - np.eye(len(names))).max() < 0.12


@pytest.mark.parametrize(
    ("name", "strength", "back"),
    [
        ("rotate_deg", 30, np.rad2deg),
        ("scale", 0.2, lambda size: size - 1),
        ("intensity_shift", 0.1, lambda shift: shift),
        ("intensity_scale", 0.25, lambda factor: factor - 1),
        ("gamma", 0.4, np.log),
    ],
)
def test_a_symmetric_strength_bounds_what_is_uniformly_distributed_around_nothing(name, strength, back):
    values = back(getattr(sampled(changed(FULL, chance=1.0)), FIELD[name]).astype(float)).reshape(1500, -1)
    assert np.abs(values).max() <= strength * (1 + 1e-5)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.07 * strength)
    np.testing.assert_allclose(values.std(axis=0), strength / math.sqrt(3), rtol=0.07)
    # Axes and modalities have their own.
    assert np.abs(np.corrcoef(values.T) - np.eye(values.shape[1])).max() < 0.12


@pytest.mark.parametrize("name", ["noise", "blur_vox"])
def test_a_strength_bounds_what_is_uniformly_distributed_from_0(name):
    values, strength = getattr(sampled(changed(FULL, chance=1.0)), FIELD[name]), getattr(FULL, name)
    assert (values >= 0).all()
    assert values.max() <= strength
    assert values.mean() == pytest.approx(strength / 2, rel=0.07)


def test_axes_are_flipped_independently_with_the_chance():
    flips = sampled(changed(FULL, flip=0.7)).flips
    np.testing.assert_allclose(flips.mean(axis=0), 0.7, atol=0.05)
    assert np.abs(np.corrcoef(flips.T.astype(float)) - np.eye(3)).max() < 0.12


def test_quarter_turns_have_the_chance_together_and_each_a_third_of_it():
    shares = np.bincount(sampled(FULL).quarters, minlength=4) / 1500
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.2, 0.2], atol=0.05)


def test_turns_are_by_180_degrees_where_x_and_y_have_unlike_lengths():
    shares = np.bincount(sampled(FULL, shape=(16, 12, 12)).quarters) / 1500
    np.testing.assert_allclose(shares, [0.4, 0, 0.6], atol=0.05)


def test_a_chance_of_1_is_always():
    changes = sampled(changed(FULL, flip=1.0, rotate90=1.0, chance=1.0))
    assert all(happened(getattr(changes, FIELD[name]), name).all() for name in FIELD)


def test_each_seed_has_its_own_change():
    changes = sampled(changed(FULL, chance=1.0), count=500)
    assert len(np.unique(changes.noise_seed, axis=0)) == 500
    assert len(np.unique(changes.size)) > 490


# ---- What becomes of a case ----


@pytest.mark.parametrize("name", FIELD)
def test_only_a_move_changes_the_target(name):
    image, target = case()
    seen = list(through_data(only(name), range(4), image, target))
    assert not any(np.array_equal(seen_image, image) for seen_image, _ in seen)
    assert all(np.array_equal(seen_target, target) for _, seen_target in seen) == (name in INTENSITIES)


@pytest.mark.parametrize("shape", [(16, 16, 12), (16, 12, 10)])
def test_everything_together_keeps_shapes_air_and_the_targets_values(shape):
    image, target = case(shape)
    strong = changed(FULL, flip=1.0, rotate90=1.0, chance=1.0)
    seen = through_data(strong, range(4), image, target)
    assert [(part.shape, part.dtype) for part in seen.element_spec] == [
        ((*shape, 4), tf.float32),
        ((*shape, 3), tf.float32),
    ]
    moves = through_data(changed(strong, **dict.fromkeys(INTENSITIES, 0.0)), range(4), image, target)
    for (seen_image, seen_target), (moved_image, moved_target) in zip(seen, moves, strict=True):
        air = ~(moved_image.numpy() != 0).any(axis=-1)
        assert 0.3 < air.mean() < 0.9
        assert not seen_image.numpy()[air].any()
        assert (seen_image.numpy()[~air] != 0).all()
        assert set(np.unique(seen_target)) == {0, 1}
        np.testing.assert_array_equal(seen_target, moved_target)


def test_image_and_target_are_moved_alike():
    _, target = case()
    # The tumour as it is drawn is the image too: 1 in it, and a little in the brain around it.
    image = tf.concat([target, tf.ones((*SHAPE, 1))], axis=-1) + 0.01
    params = changed(FULL, flip=0.5, rotate90=0.5, chance=1.0, **dict.fromkeys(INTENSITIES, 0.0))
    for seen_image, seen_target in through_data(params, range(8), image, target):
        seen, meant = seen_image.numpy()[..., 0] > 0.5, seen_target.numpy()[..., 0] > 0
        assert meant.sum() > 20
        assert 2 * (seen & meant).sum() / (seen.sum() + meant.sum()) > 0.9


def test_exact_moves_are_exactly_alike():
    image, target = case()
    for quarters, flips in itertools.product(range(4), ([True, False, False], [False, True, True])):
        change = NOTHING._replace(quarters=tf.constant(quarters), flips=tf.constant(flips))
        for volume, moved in zip((image, target), augment(image, target, change), strict=True):
            expected = np.flip(np.rot90(volume, quarters), np.flatnonzero(flips))
            np.testing.assert_array_equal(moved, expected)


def test_a_turn_then_a_flip_then_an_angle():
    image, target = case((8, 8, 8))
    quarter = NOTHING._replace(angles_rad=tf.constant([0.0, 0.0, math.pi / 2]))
    flipped = quarter._replace(quarters=tf.constant(1), flips=tf.constant([True, False, False]))
    seen_image, seen_target = augment(image, target, flipped)
    np.testing.assert_allclose(seen_image, np.rot90(np.flip(np.rot90(image), 0)), atol=2e-5)
    np.testing.assert_array_equal(seen_target, np.rot90(np.flip(np.rot90(target), 0)))


def test_a_case_that_is_turned_out_and_back_is_itself():
    image, target = case()
    there = NOTHING._replace(quarters=tf.constant(1))
    back = NOTHING._replace(quarters=tf.constant(3))
    for volume, again in zip((image, target), augment(*augment(image, target, there), back), strict=True):
        np.testing.assert_array_equal(volume, again)


def test_modalities_are_changed_each_in_its_own_way():
    one, target = case(modalities=1)
    image = tf.repeat(one, 4, axis=-1)
    for name in ("intensity_shift", "intensity_scale", "gamma"):
        seen, _ = next(iter(through_data(only(name), [1], image, target)))
        brain = (one.numpy() != 0)[..., 0]
        values = seen.numpy()[brain]
        assert all((values[:, i] != values[:, k]).mean() > 0.9 for i, k in itertools.combinations(range(4), 2)), name


def test_contrast_then_brightness_by_hand():
    image, target = case()
    factor, shift = np.array([0.5, 1, 1.5, 2], np.float32), np.array([0.5, -0.25, 0, 1], np.float32)
    seen, _ = augment(image, target, NOTHING._replace(factor=tf.constant(factor), shift=tf.constant(shift)))
    brain = (image.numpy() != 0).any(axis=-1, keepdims=True)
    np.testing.assert_array_equal(seen, np.where(brain, image.numpy() * factor + shift, 0))


def test_the_order_is_noise_blur_contrast_and_brightness_gamma():
    image, target = case()
    change = sample_change(changed(FULL, flip=0.0, rotate90=0.0, chance=1.0, rotate_deg=0.0, scale=0.0), SHAPE, seed(1))
    brain = brain_of(image)
    noisy = add_noise(image, brain, change.noise, change.noise_seed)
    rescaled = rescale(blur(noisy, brain, change.blur_vox), brain, change.factor, change.shift)
    seen, _ = augment(image, target, change)
    np.testing.assert_allclose(seen, bend(rescaled, brain, change.gamma), atol=1e-6)
    parts = (change.noise, change.blur_vox, change.factor - 1, change.shift, change.gamma - 1)
    assert all(tf.reduce_all(part != 0) for part in parts)


def test_a_brain_voxel_that_a_shift_brings_to_0_is_still_brain():
    image, target = tf.fill((4, 4, 4, 4), 0.5), tf.zeros((4, 4, 4, 3))
    zero = NOTHING._replace(shift=tf.fill((4,), -0.5))
    noisy, _ = augment(image, target, zero._replace(noise=tf.constant(0.1)))
    np.testing.assert_array_equal(augment(image, target, zero)[0], tf.zeros_like(image))
    assert (noisy.numpy() != 0).all()


# ---- From the seed alone ----


def test_a_seed_gives_the_same_in_any_order_and_without_tf_data():
    image, target = case()
    first = [seen.numpy() for seen, _ in through_data(FULL, range(6), image, target)]
    again = [seen.numpy() for seen, _ in through_data(FULL, reversed(range(6)), image, target)]
    alone = [augment(image, target, sample_change(FULL, SHAPE, seed(number)))[0].numpy() for number in range(6)]
    for one, two, three in zip(first, reversed(again), alone, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one, three, atol=1e-5)
    assert not any(np.array_equal(one, two) for one, two in itertools.combinations(first, 2))
