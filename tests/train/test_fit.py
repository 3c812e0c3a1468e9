"""One training, undisturbed and killed, on six cases of 16 x 16 x 16 voxels."""

import json
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from mis.data.pipeline.dataset import case_batches, training_batches
from mis.model.metrics import Dice
from mis.train.checkpoint import Checkpoints, best_epoch, is_finished, read_history, restore
from mis.train.devices import Devices
from mis.train.fit import compile_unet, fit
from mis.train.graph_cache import GraphCache
from mis.train.strategy import make_strategy

# Ends by its own kill -9: in the second batch of an epoch, or while a checkpoint is being written.
TRAIN = """
import json, os, signal, sys, threading, time
from pathlib import Path
import keras
import tensorflow as tf
from mis.data.records.reader import read_records
from mis.params.load import load_params
from mis.train import checkpoint
from mis.train.checkpoint import Checkpoints
from mis.train.fit import fit

records, folder, when = read_records(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
params = load_params(Path("pipelines/plain.yaml"), json.loads(sys.argv[4]))

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class KillInEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 0):
            kill()

def write_or_kill(path, content, write=checkpoint.write_json):
    if path.parent.name == ".epoch-0003.unfinished":  # the state is written, the history is not
        kill()
    write(path, content)

if when == "checkpoint":
    checkpoint.write_json = write_or_kill
fitted = fit(
    params.model,
    params.train,
    records,
    strategy=tf.distribute.get_strategy(),
    checkpoints=Checkpoints(folder),
    callbacks=[KillInEpoch()] if when == "epoch" else [],
)
print(json.dumps(fitted.history))
"""


TIMES = {
    "time/epoch_s",
    "time/total_s",
    "time/step_s",
    "time/traced_s",
    "time/samples_per_s",
    "time/input_share",
    "time/communication_share",
    "time/compute_share",
    "time/devices",
    "memory/host_peak_bytes",
}


def untimed(history):
    return [
        {name: value for name, value in epoch.items() if not name.startswith(("time/", "memory/"))} for epoch in history
    ]


GRAPH_CACHE = GraphCache()
"""Trainings of the same graph share it, as trials do."""


def train(params, records, folder, **options):
    with GRAPH_CACHE.check_out(params.model, params.train, records):
        return fit(
            params.model,
            params.train,
            records,
            strategy=tf.distribute.get_strategy(),
            checkpoints=Checkpoints(folder),
            compile_network=GRAPH_CACHE.compile,
            **options,
        )


@pytest.fixture(scope="module")
def learning(tiny_params):
    return tiny_params.override({"train.learning_rate": 0.02, "train.epochs": 8, "train.patience": 8})


@pytest.fixture(scope="module")
def fitted(learning, records, tmp_path_factory):
    """A training of eight epochs."""
    return train(learning, records, tmp_path_factory.mktemp("fit") / "checkpoints")


# ---- Undisturbed ----


@pytest.mark.slow
def test_the_network_learns(fitted):
    losses = [epoch["train/loss"] for epoch in fitted.history]
    assert losses[-1] < losses[0] - 0.02
    assert fitted.history[-1]["val/loss"] < fitted.history[0]["val/loss"]


def test_every_epoch_has_its_metrics(fitted):
    regions = ("dice", "dice_wt", "dice_tc", "dice_et")
    expected = {f"{part}/{name}" for part in ("train", "val") for name in ("loss", *regions)}
    assert len(fitted.history) == 8
    for epoch in fitted.history:
        assert set(epoch) == expected | TIMES | {"model/parameters"}
        assert epoch["model/parameters"] == fitted.parameters
        for part in ("train", "val"):
            mean = np.mean([epoch[f"{part}/{name}"] for name in regions[1:]])
            assert epoch[f"{part}/dice"] == pytest.approx(mean, abs=1e-6)
            assert all(0 <= epoch[f"{part}/{name}"] <= 1 for name in ("loss", *regions))


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"train.patch_size": [8, 8, 8], "train.patches_per_case": 2, "train.precision": "mixed_bfloat16"},
        {"train.accumulate_steps": 2, "train.clip_norm": 0.5},
    ],
    ids=["patches", "accumulated"],
)
def test_the_strategy_of_a_single_gpu_gives_the_same(tiny_params, records, tmp_path, values):
    """It is TensorFlow's own, which copies batches ahead; here its device is the CPU."""
    assert isinstance(make_strategy(Devices(("GPU:0",), 1)), tf.distribute.OneDeviceStrategy)
    short = tiny_params.override({"train.epochs": 2, **values})
    one = fit(
        short.model,
        short.train,
        records,
        strategy=tf.distribute.OneDeviceStrategy("/cpu:0"),
        checkpoints=Checkpoints(tmp_path / "one"),
    )
    default = train(short, records, tmp_path / "default")
    for mine, other in zip(one.history, default.history, strict=True):
        for name in set(mine) - TIMES:
            assert mine[name] == other[name], name


def test_times_add_up(fitted):
    seconds = [epoch["time/epoch_s"] for epoch in fitted.history]
    assert min(seconds) > 0
    np.testing.assert_allclose([epoch["time/total_s"] for epoch in fitted.history], np.cumsum(seconds))
    assert fitted.elapsed_s == fitted.history[-1]["time/total_s"]


def test_where_the_time_goes(fitted):
    for epoch in fitted.history:
        assert all(0 <= epoch[f"time/{name}_share"] <= 1 for name in ("input", "communication", "compute"))
        assert epoch["time/communication_share"] == 0  # one device has no other to exchange anything with
        assert 0 < 2 * epoch["time/step_s"] < epoch["time/epoch_s"]  # two steps, and validation
    peaks = [epoch["memory/host_peak_bytes"] for epoch in fitted.history]
    assert peaks == sorted(peaks)
    assert peaks[0] > 1e8


def test_callbacks_see_the_checkpoint_and_the_times_of_each_epoch_and_slow_input(
    tiny_params, records, tmp_path, monkeypatch
):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, logs["total_s"] >= logs["epoch_s"] > 0, Checkpoints(tmp_path / "c").newest().name))

    def slow(*arguments, **options):
        return training_batches(*arguments, **options).map(lambda *batch: after(0.3, batch))

    monkeypatch.setattr("mis.train.fit.training_batches", slow)
    short = tiny_params.override({"train.epochs": 2})
    history = train(short, records, tmp_path / "c", callbacks=[Watch()]).history
    assert seen == [(0, True, "epoch-0001"), (1, True, "epoch-0002")]
    assert history[-1]["time/input_share"] > 0.5
    assert history[-1]["time/step_s"] > 0.1


def after(seconds, batch):
    """Return a batch as late as that."""

    def wait():
        time.sleep(seconds)
        return np.float32(0)

    late = tf.py_function(wait, [], tf.float32)
    return tuple(part + tf.cast(tf.ensure_shape(late, ()), part.dtype) for part in batch)


def test_the_best_model_is_that_of_the_best_epoch(fitted, records):
    scores = [epoch["val/dice"] for epoch in fitted.history]
    assert fitted.best_epoch == scores.index(max(scores)) + 1
    model = keras.saving.load_model(fitted.best_model)
    dice = Dice()
    for image, target, weight in case_batches(records, records.split.val, 1):
        dice.update_state(target, model(image, training=False), weight)
    assert float(dice.result()) == pytest.approx(fitted.best["val/dice"], abs=1e-6)


def test_the_summary_says_what_came_out(fitted, learning, records):
    model = compile_unet(learning.model, learning.train, records)
    summary = fitted.summary()
    assert summary["parameters"] == sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    assert (summary["epoch"], summary["epochs"]) == (fitted.best_epoch, 8)
    assert summary["dice"] == max(epoch["val/dice"] for epoch in fitted.history)
    assert summary["loss"] == fitted.best["val/loss"]


def test_the_last_two_checkpoints_are_left_and_a_call_again_trains_no_more(fitted, learning, records):
    folder = fitted.checkpoints.folder
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-0007", "epoch-0008"]
    before = (folder / "epoch-0008" / "last.npz").read_bytes()
    again = train(learning, records, folder)
    assert again.history == fitted.history
    assert (folder / "epoch-0008" / "last.npz").read_bytes() == before


def test_more_epochs_go_on_where_fewer_ended(fitted, learning, records, tmp_path):
    folder = tmp_path / "c"
    train(learning.override({"train.epochs": 3}), records, folder)
    whole = train(learning, records, folder)
    assert untimed(whole.history) == untimed(fitted.history)


# ---- Stopping early ----


def test_a_training_that_gets_no_better_stops_after_its_patience(tiny_params, records, tmp_path):
    still = tiny_params.override({"train.learning_rate": 1e-12, "train.epochs": 9, "train.patience": 2})
    stopped = train(still, records, tmp_path / "c")
    assert len(stopped.history) == 3
    assert stopped.best_epoch == 1
    assert train(still, records, tmp_path / "c").history == stopped.history


def test_a_training_ends_at_the_first_moment_it_may(learning, records, tmp_path):
    hasty = learning.override({"train.patience": 1, "train.epochs": 6})
    history = train(hasty, records, tmp_path / "c").history
    for count in range(1, len(history) + 1):
        assert is_finished(history[:count], epochs=6, patience=1) == (count == len(history))


# ---- Killed ----


def overrides(params):
    names = ("depth", "base_filters", "norm")
    model = [f"model.{name}={getattr(params.model, name)}" for name in names]
    names = ("epochs", "batch_size", "patience", "learning_rate")
    return json.dumps([*model, *(f"train.{name}={getattr(params.train, name)}" for name in names)])


@pytest.mark.slow
def test_a_training_that_is_killed_twice_ends_as_an_undisturbed_one(warm, records, learning, tmp_path):
    params = learning.override({"model.norm": "batch", "train.epochs": 4})
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(folder, when):
        return warm.start(records.folder, folder, when, overrides(params), source=TRAIN)

    def end(process, returncode=0):
        out, errors = process.communicate()
        assert process.returncode == returncode, errors
        return json.loads(out.splitlines()[-1]) if returncode == 0 else None

    whole_process = start(whole, "never")
    end(start(killed, "epoch"), -signal.SIGKILL)
    assert Checkpoints(killed).newest().name == "epoch-0001"
    end(start(killed, "checkpoint"), -signal.SIGKILL)
    assert Checkpoints(killed).newest().name == "epoch-0002"
    assert (killed / ".epoch-0003.unfinished").is_dir()
    resumed = end(start(killed, "never"))
    undisturbed = end(whole_process)

    assert untimed(resumed) == untimed(undisturbed)
    assert len(resumed) == 4
    assert best_epoch(resumed) == best_epoch(undisturbed)
    assert sorted(path.name for path in killed.iterdir()) == ["epoch-0003", "epoch-0004"]
    assert untimed(read_history(killed / "epoch-0004")) == untimed(resumed)
    for before, after in zip(state(whole, params, records), state(killed, params, records), strict=True):
        np.testing.assert_array_equal(before, after)


def state(folder, params, records):
    """Return all weights and the optimizer's state after the last epoch, and the best model's weights."""
    newest = Checkpoints(folder).newest()
    model = compile_unet(params.model, params.train, records)
    restore(model, newest)
    best = keras.saving.load_model(newest / "best.keras")
    assert int(model.optimizer.iterations) == 4 * 2
    return [np.asarray(variable) for variable in (*model.variables, *model.optimizer.variables, *best.variables)]
