"""Where a training says that its time goes, when we know where it went."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from mis.train.timing import TimeSteps

CASES, STEPS = 12, 6


def shares(slow):
    """Train a small network on batches that come slowly, or at once, and return the logs of the last epoch."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((2, 64), "float32")

    def read(number):
        if slow:
            tf.numpy_function(lambda: time.sleep(0.1), [], [])
        return tf.constant(x) * tf.cast(number, tf.float32) / CASES, tf.constant(x[:, :1])

    batches = tf.data.Dataset.range(CASES).repeat().map(read)
    seen = {}
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.update({epoch: dict(logs)}))
    model.fit(
        batches,
        steps_per_epoch=STEPS,
        validation_data=batches.take(1),
        epochs=3,
        shuffle=False,
        callbacks=[TimeSteps(CASES, STEPS), keep],
        verbose=0,
    )
    return seen[2]


def test_a_training_that_waits_for_its_input_says_so():
    slow, fast = shares(slow=True), shares(slow=False)
    assert slow["input_share"] > 0.5
    assert slow["input_share"] > fast["input_share"]
    assert slow["samples_per_s"] < fast["samples_per_s"]
    assert slow["communication_share"] == fast["communication_share"] == 0


def test_validation_is_in_the_epoch_but_not_in_the_step():
    logs = shares(slow=True)
    assert logs["epoch_s"] > STEPS * logs["step_s"]
    assert logs["samples_per_s"] * logs["step_s"] * STEPS == pytest.approx(CASES)
