import keras
import numpy as np
import pytest
import tensorflow as tf

from mis.train.optimizer import make_optimizer


@pytest.fixture(scope="module")
def make(params):
    def made(**changes):
        return make_optimizer(params.override({f"train.{name}": value for name, value in changes.items()}).train)

    return made


def step(optimizer, gradients):
    """Return the weights after a step from ones."""
    weights = [keras.Variable(np.ones(np.shape(gradient), np.float32), name="kernel") for gradient in gradients]
    optimizer.apply_gradients(zip([tf.constant(gradient, tf.float32) for gradient in gradients], weights, strict=True))
    return [np.asarray(weight) for weight in weights]


def test_the_names_are_keras_s(make):
    for name, kind in (
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
        ("sgd", keras.optimizers.SGD),
    ):
        optimizer = make(optimizer=name)
        assert isinstance(optimizer, kind)
        assert type(optimizer).__name__ == kind.__name__
    assert make(optimizer="sgd").nesterov


def test_gradients_are_clipped_by_their_norm_together(make):
    gradients = [[3.0, 0.0], [0.0, 4.0]]  # of norm 5
    plain = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0}
    whole = step(make(**plain), gradients)
    np.testing.assert_allclose(whole, [[-2, 1], [1, -3]], atol=1e-6)
    clipped = step(make(**plain, clip_norm=1.0), gradients)
    np.testing.assert_allclose(clipped, [[1 - 0.6, 1], [1, 1 - 0.8]], atol=1e-6)
    np.testing.assert_allclose(step(make(**plain, clip_norm=5.5), gradients), whole, atol=1e-6)


def test_weights_decay_but_biases_and_normalisations_do_not(make):
    optimizer = make(optimizer="sgd", momentum=0.0, learning_rate=0.5, weight_decay=0.1)
    weights = [keras.Variable(np.ones(2, np.float32), name=name) for name in ("kernel", "bias", "gamma", "beta")]
    optimizer.apply_gradients([(tf.zeros(2), weight) for weight in weights])
    assert [float(np.asarray(weight)[0]) for weight in weights] == pytest.approx([0.95, 1, 1, 1])


def test_accumulated_gradients_are_those_of_one_large_batch(make):
    options = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0}
    optimizer = make(**options, accumulate_steps=2)
    weight = keras.Variable(np.ones(2, np.float32), name="kernel")
    seen = []
    for gradient in ([1.0, 0.0], [0.0, 3.0]):
        optimizer.apply_gradients([(tf.constant(gradient), weight)])
        seen.append(np.asarray(weight).tolist())
    assert seen == [[1, 1], [0.5, -0.5]]


@pytest.mark.slow
def test_two_devices_clip_the_gradient_of_both_together(run_script):
    seen = run_script("""
import json, sys
import numpy as np
import tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from mis.params.load import load_params
from pathlib import Path
from mis.train.optimizer import make_optimizer

options = {"train.optimizer": "sgd", "train.momentum": 0.0, "train.learning_rate": 1.0, "train.clip_norm": 1.0}
params = load_params(Path("pipelines/plain.yaml")).override(options).train
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    weight = keras.Variable(np.zeros(2, np.float32), name="kernel")
    optimizer = make_optimizer(params)
    optimizer.build([weight])

@tf.function
def step():
    def on_replica():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # (3, 0) and (0, 4): together of norm 5. Clipped one by one they would be (1, 0) and (0, 1).
        gradient = tf.where(tf.equal(replica, 0), tf.constant([3.0, 0.0]), tf.constant([0.0, 4.0]))
        optimizer.apply_gradients([(gradient, weight)])
    strategy.run(on_replica)

step()
print(json.dumps(np.asarray(weight).tolist()))
""")
    assert seen == pytest.approx([-0.6, -0.8])
