"""One device or several, one process or several: the same training."""

import json
import os

import numpy as np
import pytest

from mis.settings import cores

pytestmark = pytest.mark.slow

EPOCHS = 6  # of two steps

# Six cases in batches of four: in the last batch one of two replicas, and two of four, have nothing but padding.
# A process trains several networks: under a second strategy TensorFlow takes the collective operations of one for
# those of another. Trainings of the same graph share it, as trials do.
TRAIN = """
import json, sys, time
from pathlib import Path
import keras, numpy as np
from mis.data.pipeline.dataset import case_batches, Part
from mis.data.records.reader import read_records
from mis.model.losses import SegmentationLoss
from mis.params.load import load_params
from mis.settings import Settings
from mis.train.checkpoint import Checkpoints, restore
from mis.train.fit import compile_unet, fit
from mis.train.graph_cache import GraphCache
from mis.train.launch import find_launcher

records, file, out, mode_out = read_records(Path(sys.argv[1])), *map(Path, sys.argv[2:5])
distribute, trainings = json.loads(sys.argv[5]), json.loads(sys.argv[6])
params = load_params(file).override({"model.depth": 1, "model.base_filters": 4})
# Adam divides by the gradient's size: where that is near 0, rounding alone turns into a part of a step.
params = params.override({"train.batch_size": 4, "train.learning_rate": 2e-4, "train.patience": 99, **distribute})
settings = Settings(root=out, workspace=out, tracking_uri="unused")
launcher = find_launcher(params.distribute, settings, 4)

def saved_by_a_single_device():
    deadline = time.monotonic() + 200
    while not (found := list((out / "single" / "batch").glob("epoch-0006"))):
        assert time.monotonic() < deadline, "the single device has saved nothing"
        time.sleep(0.1)
    return found[0] / "best.keras"

def train(trial, strategy, checkpoints):
    with graph_cache.check_out(trial.model, trial.train, records):
        fitted = fit(
            trial.model,
            trial.train,
            records,
            strategy=strategy,
            checkpoints=checkpoints,
            compile_network=graph_cache.compile,
        )
    return fitted.history

graph_cache = GraphCache()

def work(worker):
    strategy = worker.strategy
    result = {"strategy": type(strategy).__name__, "replicas": strategy.num_replicas_in_sync, "wall_s": {}}
    for name, values in trainings.items():
        trial = params.override(values)
        checkpoints = Checkpoints(mode_out / name, writes=worker.is_chief)
        begun = time.monotonic()
        result[name] = train(trial, strategy, checkpoints)
        result["wall_s"][name] = time.monotonic() - begun
        if worker.is_chief:
            model = compile_unet(trial.model, trial.train, records)
            restore(model, checkpoints.newest())
            np.savez(
                mode_out / f"{name}.npz", **{variable.path: np.asarray(variable) for variable in model.variables}
            )
    # The other way round: what a single device has saved, under this strategy.
    with strategy.scope():
        model = keras.saving.load_model(saved_by_a_single_device())
        model.compile(loss=SegmentationLoss("dice", 0.01, 0.5, 2.0))
    val = strategy.distribute_datasets_from_function(
        lambda context: case_batches(records, records.split.train, 4, part=Part.of(context))
    )
    result["evaluated"] = model.evaluate(val, steps=2, verbose=0)
    return result

result = launcher.run(work, print)
if launcher.leads:
    print(json.dumps(result))
"""

BATCH = {"batch": {"model.norm": "batch", "train.epochs": EPOCHS}}
GROUP = {
    "group": {
        "model.norm": "group", "train.epochs": EPOCHS,
        "train.optimizer": "adamw", "train.weight_decay": 0.1, "train.loss": "focal",
    },
}  # fmt: skip
# It ends early: the validation Dice does not rise.
NONE = {"none": {"model.norm": "none", "train.epochs": EPOCHS, "train.patience": 2}}
# Whatever else there is, all of it together: several levels with a loss, patches validated in windows, a clipped
# gradient, weights that decay, their moving average, and epochs that end in the middle of a pass over the cases.
RECIPE = {
    "recipe": {
        "model.depth": 2, "model.block": "residual", "model.norm": "instance", "model.activation": "leaky_relu",
        "model.downsampling": "stride", "model.deep_supervision": 1, "train.epochs": 3,
        "train.loss": "dice_cross_entropy",
        "train.optimizer": "sgd", "train.momentum": 0.9, "train.weight_decay": 1e-3, "train.clip_norm": 0.5,
        "train.learning_rate_decay": "poly", "train.warmup_epochs": 1, "train.ema": 0.5, "train.steps_per_epoch": 3,
        "train.patch_size": [8, 8, 8], "train.patches_per_case": 2, "train.val_batch_size": 4,
    },
}  # fmt: skip
HALF = {"mixed_bfloat16": {"model.norm": "batch", "train.epochs": 2, "train.precision": "mixed_bfloat16"}}
XLA = {"xla": {"model.norm": "batch", "train.epochs": 2, "train.jit_compile": True}}

# name: (what is set, processes, strategy, replicas)
MODES = {
    "single": ({}, 1, "_DefaultDistributionStrategy", 1),
    "mirrored": ({"distribute.devices_per_worker": 2}, 1, "MirroredStrategy", 2),
    "workers": ({"distribute.workers": 2}, 2, "KerasMultiWorkerStrategy", 2),
    "workers_mirrored": (
        {"distribute.workers": 2, "distribute.devices_per_worker": 2},
        2,
        "KerasMultiWorkerStrategy",
        4,
    ),
}
SEVERAL = [mode for mode in MODES if mode != "single"]
# Tracing a network takes seconds in each process: the last way, which is the two before it together, has but the first
# and the largest.
COMMON = BATCH | RECIPE
TRAININGS = {
    "single": COMMON | GROUP | NONE | HALF | XLA,
    "mirrored": COMMON | GROUP | HALF,
    "workers": COMMON | GROUP | NONE | HALF,
    "workers_mirrored": COMMON,
}
COMPARED = [(mode, name) for mode in SEVERAL for name in TRAININGS[mode] if name not in HALF]


def start(warm, mode, records, out):
    """Start the trainings of a mode, in as many processes as it takes."""
    values, processes, _, _ = MODES[mode]
    (out / mode).mkdir()
    arguments = [
        records.folder,
        "pipelines/plain.yaml",
        out,
        out / mode,
        json.dumps(values),
        json.dumps(TRAININGS[mode]),
    ]
    # They find each other as the tasks of one step of SLURM do.
    step = {"SLURM_JOB_ID": mode, "SLURM_STEP_NUM_TASKS": str(processes), "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    env |= step | {"CUDA_VISIBLE_DEVICES": "-1"}
    return [warm.start(*arguments, source=TRAIN, env=env | {"SLURM_PROCID": str(rank)}) for rank in range(processes)]


def end(processes):
    """Wait for the processes of a mode, and return what its chief prints."""
    ended = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(ended), [error[-3000:] for _, error in ended]
    return json.loads(ended[0][0].splitlines()[-1])


@pytest.fixture(scope="module")
def trained(warm, records, tmp_path_factory):
    if cores() < 2:
        pytest.skip("two devices in one process need two cores")
    out = tmp_path_factory.mktemp("trained")
    # Each of these has one process, which traces its networks on one core.
    started = {mode: start(warm, mode, records, out) for mode in ("single", "mirrored")}
    results = {mode: end(processes) for mode, processes in started.items()}
    results |= {mode: end(start(warm, mode, records, out)) for mode in ("workers", "workers_mirrored")}
    assert not list((out / "checkpoints").glob("rendezvous/*"))
    return results, out


def relative(value, expected):
    """Return the distance of two arrays as a part of their size."""
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def weights(trained, mode, name):
    with np.load(trained[1] / mode / f"{name}.npz") as stored:
        return dict(stored)


@pytest.mark.parametrize("mode", MODES)
def test_the_launcher_chooses_the_strategy(trained, mode):
    assert trained[0][mode]["strategy"] == MODES[mode][2]
    assert trained[0][mode]["replicas"] == MODES[mode][3]


@pytest.mark.parametrize(("mode", "name"), COMPARED)
def test_several_devices_give_the_figures_of_one(trained, mode, name):
    single, several = trained[0]["single"][name], trained[0][mode][name]
    assert len(single) == len(several)
    epochs = TRAININGS[mode][name]["train.epochs"]
    assert len(single) < epochs if name in NONE else len(single) == epochs
    for before, after in zip(single, several, strict=True):
        assert set(before) == set(after)
        for metric in before:
            if not metric.startswith(("time/", "memory/")):
                assert after[metric] == pytest.approx(before[metric], rel=1e-4, abs=1e-6), metric


@pytest.mark.parametrize(("mode", "name"), COMPARED)
def test_several_devices_give_the_weights_of_one_at_the_end(trained, mode, name):
    single, several = weights(trained, "single", name), weights(trained, mode, name)
    assert set(single) == set(several)
    for path in single:
        assert relative(several[path], single[path]) < 1e-4, path


@pytest.mark.parametrize("mode", MODES)
def test_the_trainings_differ_and_the_network_learns(trained, mode):
    histories = [trained[0][mode][name] for name in TRAININGS[mode] if name not in HALF | XLA]
    assert len({history[-1]["train/loss"] for history in histories}) == len(histories) > 1
    assert all(history[-1]["train/loss"] < history[0]["train/loss"] for history in histories)


@pytest.mark.parametrize("mode", MODES)
def test_times_and_memory_are_those_of_the_training(trained, mode):
    for name, wall_s in trained[0][mode]["wall_s"].items():
        history = trained[0][mode][name]
        assert history[-1]["time/total_s"] <= wall_s
        for epoch in history:
            # Two steps and validation; the first step, which traces, counts for the epoch alone.
            assert 0 < 2 * epoch["time/step_s"] < epoch["time/epoch_s"]
            assert all(0 <= epoch[f"time/{share}_share"] <= 1 for share in ("input", "communication", "compute"))
            assert (epoch["time/communication_share"] > 0) == (MODES[mode][3] > 1)
            assert epoch["time/devices"] == MODES[mode][3]
            assert 1e8 < epoch["memory/host_peak_bytes"] < 1e11


def test_half_precision_is_close_to_full_on_one_device_and_several(trained):
    full = [epoch["train/loss"] for epoch in trained[0]["single"]["batch"][:2]]
    for mode in (mode for mode in MODES if "mixed_bfloat16" in TRAININGS[mode]):
        half = [epoch["train/loss"] for epoch in trained[0][mode]["mixed_bfloat16"]]
        assert half != full
        assert half[0] - half[1] == pytest.approx(full[0] - full[1], rel=0.05)


def test_a_step_that_xla_compiles_is_the_same(trained):
    for before, after in zip(trained[0]["single"]["batch"], trained[0]["single"]["xla"], strict=False):
        assert after["train/loss"] == pytest.approx(before["train/loss"], rel=1e-5)


@pytest.mark.parametrize("mode", SEVERAL)
def test_what_one_device_saved_loads_under_every_strategy(trained, mode):
    assert trained[0][mode]["evaluated"] == pytest.approx(trained[0]["single"]["evaluated"], rel=1e-4)


LOAD = """
import json, sys
import keras, numpy as np

found = {}
for path in sys.argv[1:]:
    model = keras.saving.load_model(path)
    image = np.linspace(-1, 1, 16**3 * 4, dtype="float32").reshape(1, 16, 16, 16, 4)
    found[path] = float(np.mean(model.predict(image, verbose=0)))
assert not [name for name in sys.modules if name.split(".")[0] == "mis"]
print(json.dumps(found))
"""


def test_what_was_saved_under_any_strategy_loads_as_a_plain_keras_model(trained, run_script):
    paths = {mode: next((trained[1] / mode / "batch").glob("epoch-*")) / "best.keras" for mode in MODES}
    found = run_script(LOAD, *paths.values(), env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    values = [found[str(path)] for path in paths.values()]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-4)
    assert 0 < values[0] < 1
