import itertools

import numpy as np
import pytest
import tensorflow as tf

from mis.data.pipeline.transforms.flip import flip


@pytest.mark.parametrize("axes", list(itertools.product([False, True], repeat=3)))
def test_it_is_numpys_and_twice_it_is_nothing(axes):
    volume = np.random.default_rng(0).normal(size=(5, 7, 4, 3)).astype(np.float32)
    flipped = flip(tf.constant(volume), tf.constant(axes))
    np.testing.assert_array_equal(flipped, np.flip(volume, np.flatnonzero(axes)))
    np.testing.assert_array_equal(flip(flipped, tf.constant(axes)), volume)
