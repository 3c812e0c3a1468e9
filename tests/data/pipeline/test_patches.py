import numpy as np
import pytest
import tensorflow as tf

from mis.data.geometry import centred_start, take_window
from mis.data.pipeline.decode import Voxels, decode, whole_case, window
from mis.data.pipeline.patches import patch_start
from mis.data.records.reader import read_contents

BITS = (0, 1, 2)
SHAPE = (12, 10, 9)


def case_of(label, shape=SHAPE):
    """Return a case whose image says where a voxel is, and that has this label."""
    row = np.arange(1, np.prod(shape) + 1, dtype=np.int32).reshape(shape)
    values = np.concatenate([[[0.0]], np.arange(1, np.prod(shape) + 1)[:, None]]).astype(np.float16)
    return Voxels(tf.constant(row), tf.constant(values), tf.constant(label.astype(np.uint8)))


def label_with(voxels, shape=SHAPE):
    label = np.zeros(shape, np.uint8)
    for index, bits in voxels.items():
        label[index] = bits
    return label


def starts(case, size, share, count=200, bits=BITS):
    draw = tf.function(lambda seed: patch_start(case, size, bits, share, seed))
    return np.array([draw(tf.constant([7, number], tf.int64)).numpy() for number in range(count)])


def test_patches_lie_anywhere_in_the_box_and_nowhere_else():
    found = starts(case_of(label_with({})), (4, 4, 4), 0.5, count=600)
    for axis, n in enumerate(SHAPE):
        assert set(found[:, axis]) == set(range(n - 4 + 1))
        expected = len(found) / (n - 3)
        counts = np.bincount(found[:, axis])
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all(), "each place is as likely as another"


def test_a_share_of_the_patches_is_centred_in_the_tumour():
    case = case_of(label_with({(6, 5, 4): 1}))
    found = starts(case, (4, 4, 4), 0.33, count=600)
    centred = np.all(found == (4, 3, 2), axis=1).mean()
    # Of those that lie anywhere one in 9 * 7 * 6 is there too.
    assert abs(centred - (0.33 + 0.67 / 378)) < 4 * np.sqrt(0.33 * 0.67 / 600)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_of_them(share):
    found = starts(case_of(label_with({(6, 5, 4): 1})), (4, 4, 4), share, count=100)
    assert (np.all(found == (4, 3, 2), axis=1).mean() == 1) == (share == 1)


def test_regions_are_chosen_before_their_voxels():
    """Otherwise the enhancing tumour, the smallest, would be looked for least."""
    label = np.zeros(SHAPE, np.uint8)
    label[:, :, 4] = 1  # a large whole tumour
    label[0, 0, 4], label[11, 9, 4] = 7, 3
    found = starts(case_of(label), (2, 2, 2), 1.0, count=600)
    at_enhancing = np.all(found == (0, 0, 3), axis=1).mean()
    # A third of the times for ET, a sixth for TC, which has two voxels, and some for WT.
    assert abs(at_enhancing - (1 / 3 + 1 / 6 + 4 / 360)) < 0.08


def test_only_the_regions_that_are_learnt_and_there_count():
    case = case_of(label_with({(6, 5, 4): 1, (2, 2, 2): 3}))
    assert set(map(tuple, starts(case, (4, 4, 4), 1.0, count=60, bits=(0, 2)))) == {(4, 3, 2), (0, 0, 0)}
    assert set(map(tuple, starts(case, (4, 4, 4), 1.0, count=60, bits=(1, 2)))) == {(0, 0, 0)}


def test_a_patch_that_would_leave_the_box_is_moved_into_it():
    assert set(map(tuple, starts(case_of(label_with({(11, 0, 8): 1})), (4, 4, 4), 1.0, count=20))) == {(8, 0, 5)}


def test_a_box_shorter_than_the_patch_lies_in_its_middle():
    case = case_of(label_with({(1, 1, 1): 1}))
    found = starts(case, (16, 16, 9), 0.5, count=20)
    assert set(map(tuple, found)) == {(-2, -3, 0)}
    image, target = window(case, tf.constant(found[0]), (16, 16, 9), BITS)
    np.testing.assert_array_equal(image[2:14, 3:13, :, 0], np.arange(1, 1081).reshape(SHAPE))
    assert (target.numpy().sum(), target.numpy()[3, 4, 1, 0]) == (1, 1)
    assert np.count_nonzero(image) == np.prod(SHAPE)


def test_a_window_is_that_part_of_the_case():
    case = case_of(label_with({(5, 5, 5): 3}))
    image, target = window(case, tf.constant([4, 4, 4]), (3, 4, 2), (1, 2))
    np.testing.assert_array_equal(
        image[..., 0].numpy(), np.arange(1, 1081).reshape(SHAPE)[4:7, 4:8, 4:6].astype(np.float16)
    )
    assert target.shape == (3, 4, 2, 2)
    assert target.numpy()[1, 1, 1].tolist() == [1, 0]
    assert target.numpy().sum() == 1


@pytest.mark.parametrize("shape", [(3, 8, 9), (16, 7, 2), (8, 8, 8), (15, 1, 4)])
@pytest.mark.parametrize("size", [(8, 8, 8), (12, 5, 3)])
def test_tensors_agree_with_arrays_on_where_a_whole_case_lies(shape, size):
    case = case_of(label_with({}, shape), shape)
    image, _ = whole_case(case, size, BITS)
    volume = np.arange(1, np.prod(shape) + 1).reshape(shape).astype(np.float16)
    start = tuple(centred_start(n, m) for n, m in zip(shape, size, strict=True))
    np.testing.assert_array_equal(image[..., 0], take_window(volume, start, size))


def test_a_record_decodes_to_its_box(records):
    for case, content in read_contents(records).items():
        voxels = decode(tf.constant(content.tobytes()), records)
        geometry = records.cases[case].geometry
        assert tuple(voxels.row.shape) == tuple(voxels.bits.shape) == geometry.size
        rows = voxels.row.numpy()
        assert sorted(rows[rows > 0]) == list(range(1, len(voxels.values)))
        assert not voxels.values[0].numpy().any()
