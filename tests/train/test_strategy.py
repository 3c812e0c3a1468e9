"""One device or several: the same training."""

import os

import numpy as np
import pytest

from mis.settings import cores

pytestmark = pytest.mark.slow

NORMS = ("batch", "group", "none")

# Six cases in batches of four: the second replica has nothing but padding in the last batch. One process trains six
# times, with other networks: under a second MirroredStrategy, TensorFlow takes the collective operations of one
# network for those of another.
TRAIN = """
import json, sys
from pathlib import Path
from mis.quiet import import_tensorflow
import_tensorflow()
import keras, numpy as np
import tensorflow as tf
from mis.data.records import read_records
from mis.params import load_params
from mis.train.checkpoint import Checkpoints, WEIGHTS
from mis.train.devices import Devices, claim
from mis.train.fit import compile_unet, fit
from mis.train.strategy import make_strategy

records, params, out = read_records(Path(sys.argv[1])), load_params(Path(sys.argv[2])), Path(sys.argv[3])
# Adam divides by the gradient's own size: where that is near 0, rounding alone turns into a part of a step.
params = params.override({"model.depth": 1, "model.base_filters": 4})
params = params.override({"train.epochs": 3, "train.batch_size": 4, "train.learning_rate": 2e-4})
devices = claim(2, 1)
strategies = {"two": make_strategy(devices), "one": make_strategy(Devices(devices.names[:1], 1))}
result = {name: [type(one).__name__, one.num_replicas_in_sync] for name, one in strategies.items()}
result["kept"] = make_strategy(claim(2, 1)) is strategies["two"]
for norm in sys.argv[4:]:
    own = params.override({"model.norm": norm})
    for name, strategy in strategies.items():
        checkpoints = Checkpoints(out / f"{norm}-{name}")
        fitted = fit(own.model, own.train, records, strategy=strategy, checkpoints=checkpoints)
        result[f"{norm}-{name}"] = fitted.history
        model = compile_unet(own.model, own.train, records)
        model.load_weights(checkpoints.newest() / WEIGHTS)
        np.savez(out / f"{norm}-{name}.npz", **{one.path: np.asarray(one) for one in model.variables})
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def trained(run_script, records, tmp_path_factory):
    if cores() < 2:
        pytest.skip("two logical devices need two cores")
    out = tmp_path_factory.mktemp("trained")
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    result = run_script(TRAIN, records.folder, "params.yaml", out, *NORMS, env=env)
    return result, out


def test_one_device_has_the_default_strategy_and_several_are_mirrored(trained):
    result, _ = trained
    assert result["one"] == ["_DefaultDistributionStrategy", 1]
    assert result["two"] == ["MirroredStrategy", 2]


def test_a_process_keeps_its_strategy(trained):
    assert trained[0]["kept"]


@pytest.mark.parametrize("norm", NORMS)
def test_two_devices_give_the_figures_of_one(trained, norm):
    one, two = (trained[0][f"{norm}-{name}"] for name in ("one", "two"))
    assert len(one) == len(two) == 3
    for before, after in zip(one, two, strict=True):
        assert set(before) == set(after)
        for name in before:
            if not name.startswith("time/"):
                assert after[name] == pytest.approx(before[name], abs=1e-5), name


@pytest.mark.parametrize("norm", NORMS)
def test_two_devices_give_the_weights_of_one(trained, norm):
    one, two = (np.load(trained[1] / f"{norm}-{name}.npz") for name in ("one", "two"))
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)


def test_the_trainings_are_not_all_one(trained):
    losses = {norm: trained[0][f"{norm}-two"][-1]["train/loss"] for norm in NORMS}
    assert len(set(losses.values())) == 3
    assert all(
        trained[0][f"{norm}-two"][-1]["train/loss"] < trained[0][f"{norm}-two"][0]["train/loss"] for norm in NORMS
    )
