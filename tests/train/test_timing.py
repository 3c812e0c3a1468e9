"""Where a training says that its time goes, when we know where it went."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from mis.train.timing import TimeSteps

pytestmark = pytest.mark.slow

CASES, STEPS, WAIT_S = 12, 6, 0.4


def last_epoch(wait_s):
    """Train a small network on batches of two cases, each of which comes after a wait, and return the last logs."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((2, 64), "float32")

    def read(number):
        if wait_s:
            tf.numpy_function(lambda: time.sleep(wait_s), [], [])
        return tf.constant(x) * tf.cast(number, tf.float32) / CASES, tf.constant(x[:, :1])

    batches = tf.data.Dataset.range(CASES).repeat().map(read)
    seen = {}
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.update({epoch: dict(logs)}))
    model.fit(
        batches,
        steps_per_epoch=STEPS,
        validation_data=batches.take(1),
        epochs=2,
        shuffle=False,
        callbacks=[TimeSteps(CASES, STEPS), keep],
        verbose=0,
    )
    return seen[1]


@pytest.fixture(scope="module")
def slow():
    return last_epoch(WAIT_S)


def test_a_training_that_waits_for_its_input_says_so(slow):
    fast = last_epoch(0)
    assert slow["input_share"] > 0.5
    assert slow["input_share"] > fast["input_share"]
    assert slow["samples_per_s"] < fast["samples_per_s"]
    assert slow["communication_share"] == fast["communication_share"] == 0


def test_a_step_takes_as_long_as_its_batch_and_a_batch_has_two_cases(slow):
    # Up to two of the six batches are read ahead, before the epoch begins.
    assert 0.6 * WAIT_S < slow["step_s"] < 3 * WAIT_S
    assert 2 / (3 * WAIT_S) < slow["samples_per_s"] < 2 / (0.6 * WAIT_S)
    assert 0 < slow["compute_share"] < 0.5


def test_validation_is_in_the_epoch_but_not_in_the_step(slow):
    assert slow["epoch_s"] > STEPS * slow["step_s"] + 0.8 * WAIT_S  # validation has a batch as well
