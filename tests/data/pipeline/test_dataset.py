import itertools
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.data.pipeline.dataset import (
    WHOLE,
    Part,
    case_batches,
    damage_as_error,
    full_batches,
    steps_per_epoch,
    training_batches,
)
from mis.data.records.reader import read_contents, read_records, size_bytes
from mis.errors import MisError
from tests.networks import dice_loss

CASES = tuple(f"BRATS_{number:03d}" for number in range(1, 9))

few = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def name_of(records):
    """Return the name of the case whose image this is."""
    known = {image[0].numpy().tobytes(): case for case, (image, _, _) in each_alone(records)}
    assert len(known) == len(CASES)
    return lambda image: known[image.tobytes()]


def each_alone(records):
    """Return each case's name and its batch of one."""
    return list(zip(CASES, case_batches(records, CASES, 1), strict=True))


@pytest.fixture(scope="module")
def training(records, params):
    """Return the batches of a training: a function of the cases, the batch, and what else is said of it."""

    def batches(cases, batch_size, *, seed=0, first_step=0, part=WHOLE, **changes):
        changes = {f"train.{name}": value for name, value in changes.items()}
        changed = params.override({"train.batch_size": batch_size, "train.seed": seed, **changes}).train
        return training_batches(records, cases, changed, first_step=first_step, part=part)

    return batches


def named(batches, name_of):
    """Return the names and the weights of each batch."""
    return [([name_of(volume) for volume in image.numpy()], weight.numpy()) for image, _, weight in batches]


def epochs(training, cases, batch_size, *, count, name_of, **options):
    steps = steps_per_epoch(len(cases), batch_size)
    batches = named(training(cases, batch_size, **options).take(count * steps), name_of)
    return [batches[begin : begin + steps] for begin in range(0, count * steps, steps)]


def counted(epoch):
    """Return the names of the cases that count."""
    return [name for names, weights in epoch for name, weight in zip(names, weights, strict=True) if weight > 0]


# ---- Each case once ----


def samples(count, batch_size, part=WHOLE):
    """Return (number, weight) of the samples of an epoch of `count` cases, whose numbers are 0, 1, ..."""
    paths, numbers = tf.constant(["path"] * count), tf.range(count, dtype=tf.int64)
    return [
        (int(number), float(weight))
        for _, number, weight in full_batches(paths, numbers, batch_size, part).as_numpy_iterator()
    ]


@given(count=st.integers(1, 40), batch_size=st.integers(1, 17))
@few
def test_every_sample_of_full_batches_has_its_weight(count, batch_size):
    epoch = samples(count, batch_size)
    assert len(epoch) == batch_size * steps_per_epoch(count, batch_size)
    assert [number for number, weight in epoch if weight > 0] == list(range(count))
    batches = [[weight for _, weight in epoch[start:][:batch_size]] for start in range(0, len(epoch), batch_size)]
    assert all(sum(weights) == pytest.approx(batch_size, rel=1e-6) for weights in batches)
    assert all(weight == 1 for weights in batches[:-1] for weight in weights)
    assert batches[-1].count(0) == -count % batch_size


@given(count=st.integers(1, 40), workers=st.integers(1, 5), each=st.integers(1, 3))
@few
def test_the_samples_of_all_workers_are_those_of_each_batch(count, workers, each):
    whole = samples(count, workers * each)
    parts = [samples(count, workers * each, Part(worker, workers, 1)) for worker in range(workers)]
    divided = [part[start : start + each] for start in range(0, len(whole) // workers, each) for part in parts]
    assert [sample for batch in divided for sample in batch] == whole


@pytest.mark.parametrize(("count", "batch_size", "seed"), [(1, 1, 0), (8, 3, 2**32 - 1), (5, 8, 7), (7, 7, 1)])
def test_every_case_counts_once_an_epoch_and_every_batch_is_full(training, name_of, count, batch_size, seed):
    cases = CASES[:count]
    for epoch in epochs(training, cases, batch_size, count=2, name_of=name_of, seed=seed):
        assert sorted(counted(epoch)) == sorted(cases)
        for names, weights in epoch:
            assert len(names) == len(weights) == batch_size
            assert weights.sum() == pytest.approx(batch_size, rel=1e-6)
        *full, (_, last) = epoch
        assert all((weights == 1).all() for _, weights in full)
        assert (last == 0).sum() == -count % batch_size


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (8, 3), (5, 8), (7, 7)])
def test_case_batches_give_each_case_once_in_order(records, name_of, count, batch_size):
    batches = named(case_batches(records, CASES[:count], batch_size), name_of)
    assert len(batches) == steps_per_epoch(count, batch_size)
    assert counted(batches) == list(CASES[:count])
    assert all(weights.sum() == pytest.approx(batch_size, rel=1e-6) for _, weights in batches)


@given(cases=st.integers(1, 10**6), batch_size=st.integers(1, 10**4))
def test_steps_are_the_fewest_batches_that_hold_all_cases(cases, batch_size):
    steps = steps_per_epoch(cases, batch_size)
    assert (steps - 1) * batch_size < cases <= steps * batch_size


def test_weights_by_hand(records):
    weights = [weight.numpy().tolist() for _, _, weight in case_batches(records, CASES[:6], 4)]
    assert weights == [[1, 1, 1, 1], [2, 2, 0, 0]]


def test_shapes_are_known_before_a_batch_is_read(records, training):
    for batches in (case_batches(records, CASES[:3], 2), training(CASES[:3], 2)):
        image, target, weight = batches.element_spec
        assert (image.shape, image.dtype.name) == ((2, 16, 16, 16, 4), "float16")
        assert (target.shape, target.dtype.name) == ((2, 16, 16, 16, 3), "uint8")
        assert (weight.shape, weight.dtype.name) == ((2,), "float32")


def test_target_and_image_belong_together(records, training):
    alone = {image.numpy().tobytes(): target.numpy() for _, (image, target, _) in each_alone(records)}
    for image, target, _ in training(CASES, 1, seed=3).take(8):
        np.testing.assert_array_equal(target.numpy(), alone[image.numpy().tobytes()])
        assert set(np.unique(target)) <= {0.0, 1.0}


# ---- Order ----


def test_the_order_is_that_of_seed_and_epoch(training, name_of):
    def orders(seed):
        return [counted(e) for e in epochs(training, CASES, 3, count=3, name_of=name_of, seed=seed)]

    assert orders(1) == orders(1)
    assert len({tuple(order) for order in (*orders(1), *orders(2))}) == 6


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_training_that_is_resumed_sees_what_an_undisturbed_one_sees(training, name_of, batch_size):
    options = {"name_of": name_of, "seed": 7}
    whole = epochs(training, CASES[:7], batch_size, count=4, **options)
    for first in range(4):
        first_step = first * steps_per_epoch(7, batch_size)
        rest = epochs(training, CASES[:7], batch_size, count=4 - first, first_step=first_step, **options)
        assert [counted(epoch) for epoch in rest] == [counted(epoch) for epoch in whole[first:]]


@pytest.mark.parametrize("part", [WHOLE, Part(1, 3, 1)])
def test_a_training_may_begin_at_any_step(training, name_of, part):
    def batches(first_step, count):
        return named(training(CASES[:7], 3, seed=7, first_step=first_step, part=part).take(count), name_of)

    whole = batches(0, 9)
    for first in (1, 2, 4, 7):
        for (names, weight), (expected, expected_weight) in zip(batches(first, 9 - first), whole[first:], strict=True):
            assert names == expected
            np.testing.assert_array_equal(weight, expected_weight)


def test_the_order_of_the_cases_does_not_depend_on_the_batch(training, name_of):
    orders = [
        [counted(epoch) for epoch in epochs(training, CASES, size, count=2, name_of=name_of, seed=0)]
        for size in (1, 3, 8)
    ]
    assert all(order == orders[0] for order in orders)


# ---- What the weights are for ----


@pytest.mark.parametrize("batch_size", [1, 3, 4, 9])
def test_the_loss_of_a_batch_is_the_mean_over_its_cases(records, batch_size):
    loss = dice_loss()
    for image, target, weight in case_batches(records, CASES, batch_size):
        prediction = image.numpy()[..., :3].astype(np.float32)
        real = list(itertools.compress(range(batch_size), weight.numpy() > 0))
        alone = [float(loss(target[index : index + 1], prediction[index : index + 1])) for index in real]
        assert float(loss(target, prediction, weight)) == pytest.approx(np.mean(alone), abs=1e-6)


# ---- Divided among workers ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "workers", "replicas", "each"), [(8, 3, 1, 1), (5, 2, 2, 1), (3, 1, 2, 2), (7, 2, 1, 2)]
)
def test_the_parts_of_all_workers_are_the_whole(records, training, name_of, count, workers, replicas, each):
    batch_size, cases = workers * replicas * each, CASES[:count]
    steps = 2 * steps_per_epoch(count, batch_size)
    pipelines = (
        partial(training, cases, batch_size, seed=3),
        partial(case_batches, records, cases, batch_size, passes=2),
    )
    for pipeline in pipelines:
        whole = named(pipeline().take(steps), name_of)
        parts = [
            named(pipeline(part=Part(worker, workers, replicas)).take(steps * replicas), name_of)
            for worker in range(workers)
        ]
        assert len(whole) == steps
        for step, (names, weights) in enumerate(whole):
            divided = [part[step * replicas + replica] for part in parts for replica in range(replicas)]
            assert [name for batch, _ in divided for name in batch] == names
            assert [weight for _, batch in divided for weight in batch] == list(weights)
            assert all(len(batch) == each for batch, _ in divided)


def test_case_batches_without_a_last_pass_go_on(records, name_of):
    twice = named(case_batches(records, CASES[:3], 2, passes=2), name_of)
    endless = named(case_batches(records, CASES[:3], 2, passes=None).take(6), name_of)
    assert [names for names, _ in endless[:4]] == [names for names, _ in twice]
    assert [names for names, _ in endless[4:]] == [names for names, _ in twice[:2]]


# ---- Patches and augmentation ----

INTENSITIES = {"augment.noise": 0.1, "augment.gamma": 0.3, "augment.chance": 0.7}
CHANGED = {"augment.flip": 0.5, "augment.rotate_deg": 20.0, "augment.noise": 0.1, "augment.chance": 0.7}


def seen(batches):
    """Return image, target and weight of each sample, in order."""
    return [sample for batch in batches for sample in zip(*(values.numpy() for values in batch), strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [INTENSITIES, {"patch_size": [8, 16, 8], **CHANGED}])
def test_what_is_seen_of_a_case_depends_on_seed_epoch_and_case_alone(training, options):
    cases = CASES[:6]
    whole = seen(training(cases, 3, seed=4, **options).take(6))  # three epochs of two batches
    again = seen(training(cases, 3, seed=4, **options).take(6))
    resumed = seen(training(cases, 3, seed=4, first_step=steps_per_epoch(len(cases), 3), **options).take(4))
    by_two = seen(training(cases, 2, seed=4, **options).take(9))
    parts = [seen(training(cases, 6, seed=4, part=Part(worker, 2, 1), **options).take(3)) for worker in range(2)]
    divided = [sample for epoch in range(3) for part in parts for sample in part[3 * epoch : 3 * epoch + 3]]
    for other, expected in ((again, whole), (resumed, whole[6:]), (by_two, whole), (divided, whole)):
        assert len(other) == len(expected)
        for (image, target, _), (wanted_image, wanted_target, _) in zip(other, expected, strict=True):
            np.testing.assert_array_equal(image, wanted_image)
            np.testing.assert_array_equal(target, wanted_target)
    images = [image.tobytes() for image, _, _ in whole]
    assert len(set(images)) > 12, "a case is not seen in the same way in every epoch"
    assert {image.tobytes() for image, _, _ in seen(training(cases, 3, seed=5, **options).take(2))} - set(images)


def test_what_is_seen_of_a_case_does_not_depend_on_the_others(training):
    options = {"patch_size": [8, 8, 8], "augment.noise": 0.1, "augment.chance": 1.0}

    def of_epochs(cases):
        """Return what is seen of the first three cases in each of two epochs, in whatever order."""
        samples = seen(training(cases, len(cases), seed=4, **options).take(2))
        return [
            {image.tobytes() for image, _, _ in samples[: len(cases)]},
            {image.tobytes() for image, _, _ in samples[len(cases) :]},
        ]

    alone = of_epochs(CASES[:3])
    assert alone[0].isdisjoint(alone[1])
    for others in (of_epochs(CASES[:4]), of_epochs(CASES[2::-1])):
        assert [images <= other for images, other in zip(alone, others, strict=True)] == [True, True]


def test_patches_have_their_shape_and_validation_sees_whole_cases(records, training):
    image, target, _ = training(CASES, 4, patch_size=[8, 16, 8]).element_spec
    assert (image.shape, target.shape) == ((4, 8, 16, 8, 4), (4, 8, 16, 8, 3))
    image, _, _ = case_batches(records, CASES, 4).element_spec
    assert image.shape == (4, *records.shape, 4)


def test_a_patch_is_a_part_of_its_case(records, training):
    volumes = {case: (image[0].numpy(), target[0].numpy()) for case, (image, target, _) in each_alone(records)}
    for image, target, _ in seen(training(CASES, 4, patch_size=[8, 8, 8]).take(4)):
        places = [
            (case, start)
            for case, (volume, _) in volumes.items()
            for start in itertools.product(range(9), repeat=3)
            if np.array_equal(volume[tuple(slice(a, a + 8) for a in start)], image)
        ]
        assert places
        case, start = places[0]
        np.testing.assert_array_equal(volumes[case][1][tuple(slice(a, a + 8) for a in start)], target)


SEVERAL = {"patch_size": [8, 8, 8], "patches_per_case": 3, "foreground_share": 0.5, "augment.flip": 0.5}


def arrays(batches):
    return [tuple(part.numpy() for part in batch) for batch in batches]


def test_several_patches_of_a_case_come_one_batch_after_another(training):
    """The first of them are those of a training that takes one, and every batch has one of each of its cases."""
    one = arrays(training(CASES[:7], 3, **{**SEVERAL, "patches_per_case": 1}).take(6))
    several = arrays(training(CASES[:7], 3, **SEVERAL).take(18))
    for number, alone in enumerate(one):
        first, *others = several[3 * number : 3 * number + 3]
        for expected, got in zip(alone, first, strict=True):
            np.testing.assert_array_equal(got, expected)
        for image, _, weight in others:
            np.testing.assert_array_equal(weight, alone[2])
            assert not np.array_equal(image, alone[0])
    images = {image.tobytes() for image, _, _ in several}
    assert len(images) == 18


def test_each_of_several_patches_is_a_part_of_its_case(records, training):
    wholes = [image.numpy()[0] for _, (image, _, _) in each_alone(records)]
    options = {**SEVERAL, "augment.flip": 0.0, "foreground_share": 1.0}
    several = arrays(training(CASES, 2, **options).take(12))
    for first in range(0, 12, 3):
        for index in range(2):
            cases = {
                number
                for number, whole in enumerate(wholes)
                if all(has_part(whole, image[index]) for image, _, _ in several[first : first + 3])
            }
            assert len(cases) == 1, "all three patches are parts of one case"


def has_part(whole, patch):
    windows = np.lib.stride_tricks.sliding_window_view(whole, patch.shape[:3], axis=(0, 1, 2))
    same = (windows == patch.transpose(3, 0, 1, 2)).all(axis=(3, 4, 5, 6))
    return bool(same.any())


@pytest.mark.parametrize("part", [WHOLE, Part(1, 2, 2)])
def test_a_training_on_several_patches_may_begin_at_any_step(training, part):
    whole = arrays(training(CASES[:7], 4, part=part, **SEVERAL).take(18 * part.replicas))
    for first in (1, 2, 3, 7):
        rest = arrays(training(CASES[:7], 4, part=part, first_step=first, **SEVERAL).take(4))
        for got, expected in zip(rest, whole[first * part.replicas :], strict=False):
            for one, other in zip(got, expected, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("workers", "replicas"), [(1, 2), (2, 1), (2, 2)])
def test_several_patches_are_the_same_on_any_number_of_devices(training, workers, replicas):
    whole = arrays(training(CASES[:7], 4, **SEVERAL).take(9))
    parts = [
        arrays(training(CASES[:7], 4, part=Part(worker, workers, replicas), **SEVERAL).take(9 * replicas))
        for worker in range(workers)
    ]
    for step, expected in enumerate(whole):
        pieces = [part[step * replicas + replica] for part in parts for replica in range(replicas)]
        for number in range(3):
            np.testing.assert_array_equal(np.concatenate([piece[number] for piece in pieces]), expected[number])


def test_a_record_that_is_damaged_is_told_in_one_line(records, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    case = records.split.train[0]
    path = folder / f"{case}.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    damaged = read_records(folder)
    with (
        pytest.raises(MisError, match=r"must be as they were written: .*make them with") as error,
        damage_as_error(damaged),
    ):
        list(case_batches(damaged, [case], 1))
    assert "\n" not in str(error.value)


def test_a_record_that_is_damaged_is_not_taken_into_memory(records, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    path = folder / f"{records.split.train[0]}.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(MisError, match=r"tfrecord must be as it was written"):
        read_contents(read_records(folder))


def test_from_memory_comes_what_comes_from_the_files(records):
    cases = records.split.train
    held = replace(records, in_memory=read_contents(records))
    for batch, other in zip(case_batches(records, cases, 2), case_batches(held, cases, 2), strict=True):
        for expected, found in zip(batch, other, strict=True):
            assert np.array_equal(expected, found)
            assert expected.shape == found.shape
    assert case_batches(held, cases, 2).element_spec == case_batches(records, cases, 2).element_spec
    assert size_bytes(records) == sum(len(content) + 16 for content in held.in_memory.values())
