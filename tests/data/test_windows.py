import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.data.windows import gaussian_weights, window_starts

edges = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted)


@given(axes=st.tuples(edges, edges, edges), overlap=st.floats(0, 0.9))
def test_windows_cover_every_voxel_and_stay_inside(axes, overlap):
    size, shape = [axis[0] for axis in axes], [axis[1] for axis in axes]
    starts = window_starts(shape, size, overlap)
    assert len({tuple(start) for start in starts.tolist()}) == len(starts)
    for axis in range(3):
        firsts = np.unique(starts[:, axis])
        assert firsts[0] == 0
        assert firsts[-1] == shape[axis] - size[axis]
        steps = np.diff(firsts)
        # No further apart than the overlap allows, but that a step is at least a voxel.
        assert (steps <= max(1, np.ceil(size[axis] * (1 - overlap)))).all()
        # Evenly: no two steps differ by more than rounding.
        assert steps.size == 0 or steps.max() - steps.min() <= 1
    assert len(starts) == np.prod([len(np.unique(starts[:, axis])) for axis in range(3)])


def test_nnu_net_s_windows_of_a_full_size_case():
    # 3 x 3 x 2 windows of 128 with half of it in common, as nnU-Net has them for 240 x 240 x 155.
    starts = window_starts((240, 240, 155), (128, 128, 128), 0.5)
    assert len(starts) == 18
    assert np.unique(starts[:, 0]).tolist() == [0, 56, 112]
    assert np.unique(starts[:, 2]).tolist() == [0, 27]


@pytest.mark.parametrize("size", [(8, 8, 8), (16, 8, 4), (1, 1, 1), (7, 9, 5)])
def test_weights_are_highest_in_the_middle_and_the_same_reflected(size):
    weights = gaussian_weights(size)
    assert weights.shape == size
    assert weights.dtype == np.float32
    assert weights.max() == 1
    assert weights.min() > 0
    assert weights[tuple(edge // 2 for edge in size)] == 1
    for axis in range(3):
        np.testing.assert_array_equal(np.flip(weights, axis), weights)


def test_a_weight_by_hand():
    # One standard deviation, an eighth of the edge, from the middle of an odd window.
    weights = gaussian_weights((17, 1, 1))[:, 0, 0]
    assert weights[8] == 1
    assert weights[8 + 2] == pytest.approx(np.exp(-0.5 * (2 / (17 / 8)) ** 2), rel=1e-6)
