"""A network that a process has traced serves its later trials as a new network would."""

import keras
import numpy as np
import pytest

from mis.train.graph_cache import GraphCache, TracedNetwork

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from pathlib import Path
from mis.quiet import import_tensorflow
import_tensorflow()
from mis.data.records.reader import read_records
from mis.params.load import Params
from mis.train.allocate import Share
from mis.train.checkpoint import Checkpoints
from mis.train import trial
from mis.train.trial import GRAPH_CACHE, run_trial

params = Params.model_validate(json.loads(Path(sys.argv[1]).read_text()))
records, folder = read_records(Path(sys.argv[2])), Path(sys.argv[3])
share = Share(devices=1, threads=1, concurrent=1, bundle={})
numbers = iter(range(99))

def losses(report=lambda history: None, **values):
    trial_params = params.for_trial({f"train.{name}": value for name, value in values.items()}, 3)
    checkpoints = Checkpoints(folder / str(next(numbers)))
    try:
        run_trial(trial_params, share, records, checkpoints, report)
    except SystemExit:
        pass
    return [[epoch["train/loss"], epoch["val/dice"]] for epoch in checkpoints.history()]

def stop(history):
    sys.exit(0)

result = {"first": losses(learning_rate=1e-3)}
result["idle"] = [len(GRAPH_CACHE.idle)]
result["shared"] = losses(learning_rate=5e-3)
result["other seed"] = losses(learning_rate=1e-3, seed=9)
result["stopped"] = losses(stop, learning_rate=1e-2)
result["first again"] = losses(learning_rate=1e-3)
(network,) = GRAPH_CACHE.idle.values()
result["traced"] = network.model.train_function.function.experimental_get_tracing_count()
result["other"] = losses(learning_rate=1e-3, beta_2=0.9)
result["idle"].append(len(GRAPH_CACHE.idle))
GRAPH_CACHE.clear()
result["new"] = losses(learning_rate=5e-3)
print(json.dumps(result))
"""


def test_a_trial_with_a_network_of_the_cache_is_as_with_a_new_network(run_script, tiny_params, records, tmp_path):
    (tmp_path / "params.json").write_text(tiny_params.model_dump_json())
    seen = run_script(SCRIPT, tmp_path / "params.json", records.folder, tmp_path)
    assert seen["shared"] == seen["new"]
    assert seen["first again"] == seen["first"]
    assert len(seen["stopped"]) == 1
    assert seen["traced"] == 1, "by all trials that differ in their learning rate, seed and end alone"
    assert seen["idle"] == [1, 2]
    assert len({str(seen[name]) for name in ("first", "shared", "other seed", "other")}) == 4


def test_a_reset_sets_the_optimizer_to_its_initial_state():
    """Not all of that state is 0: an optimizer that scales the loss begins with a scale."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    new = keras.models.clone_model(model)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1, amsgrad=True))
    model.compile(optimizer=optimizer, loss="mse")
    model.optimizer.build(model.trainable_variables)
    network = TracedNetwork.from_untrained(model)
    before = [np.asarray(variable) for variable in model.optimizer.variables]
    rng = np.random.default_rng(0)
    for _ in range(3):
        model.train_on_batch(rng.normal(size=(4, 3)), rng.normal(size=(4, 2)))
    model.optimizer.dynamic_scale.assign(7.0)
    network.reset(new)
    for variable, value in zip(model.optimizer.variables, before, strict=True):
        assert np.array_equal(variable, value), variable.path
    for variable, value in zip(model.variables, new.variables, strict=True):
        assert np.array_equal(variable, value)


def test_no_more_networks_are_kept_than_the_capacity(tiny_params, records):
    graph_cache = GraphCache(capacity=2)
    for groups in (1, 2, 4):
        model = tiny_params.model.model_copy(update={"groups": groups})
        with graph_cache.check_out(model, tiny_params.train, records):
            graph_cache.compile(model, tiny_params.train, records)
    assert len(graph_cache.idle) == 2
    assert graph_cache.clear()
    assert not graph_cache.clear()


def test_after_an_error_a_network_is_not_kept(tiny_params, records):
    graph_cache = GraphCache()

    def fail():
        with graph_cache.check_out(tiny_params.model, tiny_params.train, records):
            graph_cache.compile(tiny_params.model, tiny_params.train, records)
            raise ValueError("in the middle of an epoch")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert not graph_cache.idle
    assert graph_cache.in_use is None
