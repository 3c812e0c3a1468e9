"""A network that a process has traced serves its later trials, as a new one would."""

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from pathlib import Path
from mis.quiet import import_tensorflow
import_tensorflow()
from mis.data.records import read_records
from mis.params import Params
from mis.train.allocate import Share
from mis.train.checkpoint import Checkpoints
from mis.tune import trial
from mis.tune.trial import NETWORKS, run_trial

params = Params.model_validate(json.loads(Path(sys.argv[1]).read_text()))
records, folder = read_records(Path(sys.argv[2])), Path(sys.argv[3])
share = Share(devices=1, threads=1, concurrent=1, bundle={})
numbers = iter(range(99))

def losses(report=lambda history: None, **values):
    own = params.for_trial({f"train.{name}": value for name, value in values.items()}, 3)
    checkpoints = Checkpoints(folder / str(next(numbers)))
    try:
        run_trial(own, share, records, checkpoints, report)
    except SystemExit:
        pass
    return [[epoch["train/loss"], epoch["val/dice"]] for epoch in checkpoints.history()]

def stop(history):
    sys.exit(0)

result = {"first": losses(learning_rate=1e-3)}
result["kept"] = [len(NETWORKS.kept)]
result["shared"] = losses(learning_rate=5e-3)
result["other seed"] = losses(learning_rate=1e-3, seed=9)
result["stopped"] = losses(stop, learning_rate=1e-2)
result["first again"] = losses(learning_rate=1e-3)
(network,) = NETWORKS.kept.values()
result["traced"] = network.train_function.function.experimental_get_tracing_count()
result["other"] = losses(learning_rate=1e-3, beta_2=0.9)
result["kept"].append(len(NETWORKS.kept))
NETWORKS.forget()
result["new"] = losses(learning_rate=5e-3)
print(json.dumps(result))
"""


def test_a_network_that_is_used_again_is_as_a_new_one(run_script, tiny_params, records, tmp_path):
    (tmp_path / "params.json").write_text(tiny_params.model_dump_json())
    seen = run_script(SCRIPT, tmp_path / "params.json", records.folder, tmp_path)
    assert seen["shared"] == seen["new"]
    assert seen["first again"] == seen["first"]
    assert len(seen["stopped"]) == 1
    assert seen["traced"] == 1, "by all trials that differ in their learning rate, seed and end alone"
    assert seen["kept"] == [1, 2]
    assert len({str(seen[name]) for name in ("first", "shared", "other seed", "other")}) == 4
