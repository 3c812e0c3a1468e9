from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.params.load import load_params
from mis.train.batch_rule import for_replicas
from mis.train.in_force import in_force

PARAMS = load_params(Path(__file__).parents[2] / "pipelines" / "plain.yaml")


def resolved(replicas, **rule):
    distribute = PARAMS.distribute.model_copy(update=rule)
    return for_replicas(PARAMS.train, distribute, replicas)


@given(replicas=st.integers(1, 64))
def test_a_fixed_global_batch_is_the_same_training_on_any_number_of_devices(replicas):
    assert resolved(replicas) == PARAMS.train


@given(replicas=st.integers(1, 64), scaling=st.sampled_from(["none", "linear", "sqrt"]))
def test_a_batch_for_each_replica_grows_with_them_and_the_learning_rate_by_its_rule(replicas, scaling):
    in_force = resolved(replicas, batch_rule="per_replica_batch", lr_scaling=scaling)
    assert in_force.batch_size == PARAMS.train.batch_size * replicas
    exponent = {"none": 0, "sqrt": 0.5, "linear": 1}[scaling]
    assert in_force.learning_rate == pytest.approx(PARAMS.train.learning_rate * replicas**exponent)
    others = {"batch_size", "learning_rate"}
    assert in_force.model_dump(exclude=others) == PARAMS.train.model_dump(exclude=others)


def test_on_one_device_the_rules_are_one():
    assert resolved(1, batch_rule="per_replica_batch", lr_scaling="linear") == PARAMS.train


def test_the_rule_in_force_is_recorded():
    distribute = PARAMS.distribute.model_copy(update={"batch_rule": "per_replica_batch", "lr_scaling": "linear"})
    train = PARAMS.train.model_copy(update={"batch_size": 2, "learning_rate": 0.001})
    assert in_force(train, distribute, 4) == {
        "in_force.rule": "per_replica_batch, learning rate scaling linear",
        "in_force.replicas": 4,
        "in_force.global_batch_size": 8,
        "in_force.learning_rate": 0.004,
    }
    assert in_force(train, PARAMS.distribute, 4)["in_force.rule"] == "fixed_global_batch"
