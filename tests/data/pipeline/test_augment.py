"""The augmentation: what is sampled, what becomes of a case, and that nothing but the seed and the name decides."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from mis.data.pipeline.augment import TRANSFORMS, augment, is_active, sample_parameters
from mis.data.pipeline.transforms.affine import AffineParameters
from mis.data.pipeline.transforms.base import Transform
from mis.data.pipeline.transforms.blur import blur
from mis.data.pipeline.transforms.brightness_contrast import BrightnessContrastParameters, rescale
from mis.data.pipeline.transforms.gamma import adjust_gamma
from mis.data.pipeline.transforms.noise import NoiseParameters, add_noise
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
NOTHING = {
    "rotate90": tf.constant(0),
    "flip": tf.constant([False] * 3),
    "affine": AffineParameters(tf.zeros(3), tf.constant(1.0)),
    "noise": NoiseParameters(tf.constant(0.0), tf.constant([0, 0], tf.int64)),
    "blur": tf.constant(0.0),
    "brightness_contrast": BrightnessContrastParameters(tf.ones(4), tf.zeros(4)),
    "gamma": tf.ones(4),
}
"""The parameters of each transform with which nothing happens."""
PLACES = {
    "flip": ("flip", None),
    "rotate90": ("rotate90", None),
    "rotate_deg": ("affine", "angles_rad"),
    "scale": ("affine", "size"),
    "intensity_shift": ("brightness_contrast", "shift"),
    "intensity_scale": ("brightness_contrast", "factor"),
    "gamma": ("gamma", None),
    "noise": ("noise", "std"),
    "blur_vox": ("blur", None),
}
"""The transform that a parameter of params.yaml is of, and the field of its parameters."""
SHAPE = (16, 16, 12)
COUNT = 1500


def changed(params, **values):
    return params.model_copy(update=values)


def only(name, chance=1.0):
    """Return parameters with one change alone, which always happens."""
    value = 1.0 if name in ("flip", "rotate90") else getattr(FULL, name)
    return changed(OFF, chance=chance, **{name: value})


def seed(number):
    return tf.constant([7, number], tf.int64)


def value(parameters, name):
    """Return what was sampled for a parameter of params.yaml."""
    transform, field = PLACES[name]
    return parameters[transform] if field is None else getattr(parameters[transform], field)


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


def sampled(params, count=COUNT, shape=SHAPE, transforms=TRANSFORMS):
    """Return what is sampled from as many seeds, each value with the seeds as its first axis."""
    seeds = tf.data.Dataset.range(count).map(lambda number: tf.stack([tf.constant(7, tf.int64), number]))
    batch = next(iter(seeds.map(lambda seed: sample_parameters(params, shape, seed, transforms)).batch(count)))
    return tf.nest.map_structure(lambda values: values.numpy(), batch)


@pytest.fixture(scope="module")
def full():
    """What is sampled with `FULL` from 1500 seeds."""
    return sampled(FULL)


@pytest.fixture(scope="module")
def always():
    """What is sampled with `FULL` from 1500 seeds, at a chance of 1."""
    return sampled(changed(FULL, chance=1.0))


def through_data(params, numbers, image, target):
    """Return what training sees, (image, target) for each seed, from tf.data in graph mode."""
    numbers = tf.data.Dataset.from_tensor_slices(tf.constant(list(numbers), tf.int64))

    def view(number):
        seed = tf.stack([tf.constant(7, tf.int64), number])
        return augment(image, target, sample_parameters(params, image.shape[:3], seed))

    return numbers.map(view, num_parallel_calls=2, deterministic=True)


# ---- Whether anything happens ----


def test_nothing_can_happen_without_a_strength_or_without_a_chance():
    assert not is_active(OFF)
    assert not is_active(changed(FULL, flip=0.0, rotate90=0.0, chance=0.0))
    assert is_active(FULL)
    for name in PLACES:
        assert is_active(only(name)), name
        assert is_active(only(name, chance=0.0)) == (name in ("flip", "rotate90")), name


def test_where_nothing_is_sampled_a_case_is_bit_for_bit_itself():
    image, target = case()
    for params in (OFF, changed(FULL, flip=0.0, rotate90=0.0, chance=0.0)):
        for seen_image, seen_target in through_data(params, [0], image, target):
            assert seen_image.numpy().tobytes() == image.numpy().tobytes()
            assert seen_target.numpy().tobytes() == target.numpy().tobytes()
    seen_image, seen_target = augment(image, target, NOTHING)
    assert seen_image.numpy().tobytes() == image.numpy().tobytes()
    assert seen_target.numpy().tobytes() == target.numpy().tobytes()


# ---- Each transform has a random stream of its name ----


def assert_same(parameters, expected):
    for found, wanted in zip(tf.nest.flatten(parameters), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_transform_that_is_added_removed_or_moved_leaves_what_is_sampled_of_the_others_as_it_was():
    expected = sample_parameters(FULL, SHAPE, seed(3))
    added = Transform(
        name="added",
        is_active=lambda _params: True,
        sample=lambda _params, _shape, seed: tf.random.stateless_uniform((), seed),
        apply=lambda sample, _parameters: sample,
    )
    with_another = sample_parameters(FULL, SHAPE, seed(3), (added, *TRANSFORMS))
    assert set(with_another) == {*expected, "added"}
    assert_same({name: with_another[name] for name in expected}, expected)
    assert_same(sample_parameters(FULL, SHAPE, seed(3), TRANSFORMS[::-1]), expected)
    for removed in TRANSFORMS:
        rest = [transform for transform in TRANSFORMS if transform is not removed]
        others = {name: values for name, values in expected.items() if name != removed.name}
        assert_same(sample_parameters(FULL, SHAPE, seed(3), rest), others)


def test_two_transforms_do_not_share_a_random_stream():
    """A copy of a transform under another name samples other values."""
    (gamma,) = (transform for transform in TRANSFORMS if transform.name == "gamma")
    both = sample_parameters(changed(FULL, chance=1.0), SHAPE, seed(3), [gamma, replace(gamma, name="other")])
    assert not np.array_equal(both["gamma"], both["other"])


def test_a_change_without_strength_is_never_sampled_and_leaves_the_others_as_they_were(full):
    for name, (transform, _) in PLACES.items():
        without = sampled(changed(FULL, **{name: 0.0}), count=100)
        if transform in without:
            nothing = value(NOTHING, name).numpy()
            assert (value(without, name) == nothing).all(), name
            assert (value(full, name)[:100] != nothing).any(), name
        for other in PLACES.keys() - {name}:
            np.testing.assert_array_equal(value(without, other), value(full, other)[:100])


# ---- What is sampled ----


def happened(values, name):
    """Return for each seed whether a change happened."""
    return (values != value(NOTHING, name).numpy()).reshape(len(values), -1)


def test_the_chance_is_the_share_of_cases_that_are_changed_in_all_axes_or_modalities_independently(full):
    names = ["rotate_deg", "scale", *INTENSITIES]
    which = []
    for name in names:
        changes = happened(value(full, name), name)
        assert (changes.any(axis=1) == changes.all(axis=1)).all(), name
        assert changes.mean() == pytest.approx(FULL.chance, abs=0.05), name
        which.append(changes[:, 0])
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
def test_a_symmetric_strength_bounds_what_is_uniformly_distributed_around_nothing(always, name, strength, back):
    values = back(value(always, name).astype(float)).reshape(COUNT, -1)
    assert np.abs(values).max() <= strength * (1 + 1e-5)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.07 * strength)
    np.testing.assert_allclose(values.std(axis=0), strength / math.sqrt(3), rtol=0.07)
    # Axes and modalities have values of their own.
    assert np.abs(np.corrcoef(values.T) - np.eye(values.shape[1])).max() < 0.12


@pytest.mark.parametrize("name", ["noise", "blur_vox"])
def test_a_strength_bounds_what_is_uniformly_distributed_from_0(always, name):
    values, strength = value(always, name), getattr(FULL, name)
    assert (values >= 0).all()
    assert values.max() <= strength
    assert values.mean() == pytest.approx(strength / 2, rel=0.07)


def test_axes_are_flipped_independently_with_the_chance():
    flips = value(sampled(changed(OFF, flip=0.7)), "flip")
    np.testing.assert_allclose(flips.mean(axis=0), 0.7, atol=0.05)
    assert np.abs(np.corrcoef(flips.T.astype(float)) - np.eye(3)).max() < 0.12


def test_quarter_turns_have_the_chance_together_and_each_a_third_of_it(full):
    shares = np.bincount(value(full, "rotate90"), minlength=4) / COUNT
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.2, 0.2], atol=0.05)


def test_turns_are_by_180_degrees_where_x_and_y_have_unlike_lengths():
    shares = np.bincount(value(sampled(changed(OFF, rotate90=0.6), shape=(16, 12, 12)), "rotate90")) / COUNT
    np.testing.assert_allclose(shares, [0.4, 0, 0.6], atol=0.05)


def test_a_chance_of_1_is_always():
    changes = sampled(changed(FULL, flip=1.0, rotate90=1.0, chance=1.0), count=200)
    assert all(happened(value(changes, name), name).all() for name in PLACES)


def test_each_seed_has_its_own_change(always):
    assert len(np.unique(always["noise"].seed, axis=0)) == COUNT
    assert len(np.unique(value(always, "scale"))) > 0.98 * COUNT


# ---- What becomes of a case ----


@pytest.mark.parametrize("name", PLACES)
def test_only_a_move_changes_the_target(name):
    image, target = case()
    # A Gaussian of less than 0.2 voxels changes nothing in single precision: with this strength none is sampled.
    params = changed(only(name), blur_vox=20.0) if name == "blur_vox" else only(name)
    seen = list(through_data(params, range(4), image, target))
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
        parameters = NOTHING | {"rotate90": tf.constant(quarters), "flip": tf.constant(flips)}
        for volume, moved in zip((image, target), augment(image, target, parameters), strict=True):
            expected = np.flip(np.rot90(volume, quarters), np.flatnonzero(flips))
            np.testing.assert_array_equal(moved, expected)


def test_a_turn_then_a_flip_then_an_angle():
    image, target = case((8, 8, 8))
    parameters = {
        "affine": AffineParameters(tf.constant([0.0, 0.0, math.pi / 2]), tf.constant(1.0)),
        "rotate90": tf.constant(1),
        "flip": tf.constant([True, False, False]),
    }
    seen_image, seen_target = augment(image, target, parameters)
    np.testing.assert_allclose(seen_image, np.rot90(np.flip(np.rot90(image), 0)), atol=2e-5)
    np.testing.assert_array_equal(seen_target, np.rot90(np.flip(np.rot90(target), 0)))


def test_a_case_that_is_turned_out_and_back_is_itself():
    image, target = case()
    out, back = {"rotate90": tf.constant(1)}, {"rotate90": tf.constant(3)}
    for volume, again in zip((image, target), augment(*augment(image, target, out), back), strict=True):
        np.testing.assert_array_equal(volume, again)


def test_modalities_are_changed_each_in_its_own_way():
    single, target = case(modalities=1)
    image = tf.repeat(single, 4, axis=-1)
    for name in ("intensity_shift", "intensity_scale", "gamma"):
        seen, _ = next(iter(through_data(only(name), [1], image, target)))
        brain = (single.numpy() != 0)[..., 0]
        values = seen.numpy()[brain]
        assert all((values[:, i] != values[:, k]).mean() > 0.9 for i, k in itertools.combinations(range(4), 2)), name


def test_contrast_then_brightness_by_hand():
    image, target = case()
    factor, shift = np.array([0.5, 1, 1.5, 2], np.float32), np.array([0.5, -0.25, 0, 1], np.float32)
    parameters = BrightnessContrastParameters(tf.constant(factor), tf.constant(shift))
    seen, _ = augment(image, target, {"brightness_contrast": parameters})
    brain = (image.numpy() != 0).any(axis=-1, keepdims=True)
    np.testing.assert_array_equal(seen, np.where(brain, image.numpy() * factor + shift, 0))


def test_the_order_is_noise_blur_contrast_and_brightness_gamma():
    image, target = case()
    params = changed(FULL, flip=0.0, rotate90=0.0, chance=1.0, rotate_deg=0.0, scale=0.0)
    parameters = sample_parameters(params, SHAPE, seed(1))
    brain = tf.reduce_any(image != 0, axis=-1, keepdims=True)
    noisy = add_noise(image, brain, parameters["noise"])
    rescaled = rescale(blur(noisy, brain, parameters["blur"]), brain, parameters["brightness_contrast"])
    seen, _ = augment(image, target, parameters)
    np.testing.assert_allclose(seen, adjust_gamma(rescaled, brain, parameters["gamma"]), atol=1e-6)
    assert all(happened(value(parameters, name).numpy()[np.newaxis], name).all() for name in INTENSITIES)


def test_a_brain_voxel_that_a_shift_brings_to_0_is_still_brain():
    image, target = tf.fill((4, 4, 4, 4), 0.5), tf.zeros((4, 4, 4, 3))
    zero = {"brightness_contrast": BrightnessContrastParameters(tf.ones(4), tf.fill((4,), -0.5))}
    noisy, _ = augment(image, target, zero | {"noise": NoiseParameters(tf.constant(0.1), seed(0))})
    np.testing.assert_array_equal(augment(image, target, zero)[0], tf.zeros_like(image))
    assert (noisy.numpy() != 0).all()


# ---- From the seed alone ----


@pytest.mark.slow
def test_a_seed_gives_the_same_in_any_order_and_without_tf_data():
    image, target = case()
    first = [seen.numpy() for seen, _ in through_data(FULL, range(6), image, target)]
    again = [seen.numpy() for seen, _ in through_data(FULL, reversed(range(6)), image, target)]
    alone = [augment(image, target, sample_parameters(FULL, SHAPE, seed(number)))[0].numpy() for number in range(6)]
    for image, same, eager in zip(first, reversed(again), alone, strict=True):
        np.testing.assert_array_equal(image, same)
        np.testing.assert_allclose(image, eager, atol=1e-5)
    assert not any(np.array_equal(image, other) for image, other in itertools.combinations(first, 2))
