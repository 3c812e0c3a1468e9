import numpy as np
import pytest
import tensorflow as tf

from mis.data.pipeline.transforms.rotate90 import rotate90


def volume_of(shape):
    """Return a volume without a symmetry, (x, y, z, channel)."""
    return np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)


def turned(volume, quarters):
    return rotate90(tf.constant(volume), tf.constant(quarters)).numpy()


@pytest.mark.parametrize(("shape", "quarters"), [*(((5, 5, 4), n) for n in range(4)), ((5, 7, 4), 0), ((5, 7, 4), 2)])
def test_it_is_numpys(shape, quarters):
    volume = volume_of(shape)
    np.testing.assert_array_equal(turned(volume, quarters), np.rot90(volume, quarters))


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_add_up_to_a_whole_one(quarters):
    volume = volume_of((5, 5, 4))
    np.testing.assert_array_equal(turned(turned(volume, quarters), -quarters % 4), volume)


def test_the_shape_is_known_in_a_graph():
    @tf.function
    def shape_of(volume, quarters):
        assert rotate90(volume, quarters).shape == (5, 5, 4, 3)
        return 0

    shape_of(tf.zeros((5, 5, 4, 3)), tf.constant(1))
