"""Searches on a real Ray cluster, with real trainings, small."""

import ipaddress
import shutil
from contextlib import suppress

import psutil
import pytest

from mis.data.records.reader import read_contents
from mis.tune.trial import best_trial
from tests.tune.ray.conftest import LEARNING_RATE, NO_SCHEDULER

pytestmark = pytest.mark.slow


def test_every_trial_is_tracked_below_its_study(searched):
    trials, tracker = searched
    study, *children = tracker.runs
    children.sort(key=lambda run: run.tags["mis.trial"])
    assert [trial.state for trial in trials] == ["completed"] * 4
    assert [child.parent for child in children] == [study.id] * 4
    assert {child.status for child in children} == {"FINISHED"}
    for trial, child in zip(trials, children, strict=True):
        assert 1e-3 <= trial.values["train.learning_rate"] <= 1e-2
        assert child.params["train.learning_rate"] == str(trial.values["train.learning_rate"])
        assert [step for step, _ in child.metrics["val/dice"]] == [1, 2]
        assert [value for _, value in child.metrics["val/dice"]] == [epoch["val/dice"] for epoch in trial.history]


def test_a_trial_that_diverges_is_stopped_and_recorded(search):
    trials, _ = search(
        tune__num_samples=2,
        tune__epochs=4,
        tune__space={"train.learning_rate": {"type": "choice", "values": [1e-3, 1e38]}},
        tune__sampler={"name": "grid", "seed": 0},
        model__norm="none",
    )
    states = {trial.values["train.learning_rate"]: trial.state for trial in trials}
    assert states[1e38] == "diverged"
    assert states[1e-3] in ("completed", "stopped")


def test_the_models_of_the_best_are_kept(searched):
    trials, _ = searched
    kept = {trial.name for trial in trials if trial.best_model is not None}
    best = sorted(trials, key=lambda trial: (-trial.best["val/dice"], trial.name))[:2]
    assert kept == {trial.name for trial in best}
    assert all(trial.best_model.is_file() for trial in best)
    assert best_trial(trials) is best[0]


def test_two_objectives_and_two_trials_on_a_device(search):
    """Dice and the number of weights, which follows from the filters."""
    trials, _ = search(
        tune__num_samples=8,
        tune__epochs=1,
        tune__devices_per_trial=0.5,
        tune__second_objective="parameters",
        tune__sampler={"name": "nsga2", "seed": 1},
        tune__scheduler=NO_SCHEDULER,
        tune__space=LEARNING_RATE | {"model.base_filters": {"type": "choice", "values": [4, 8]}},
    )
    assert len(trials) == 8
    weights = {trial.values["model.base_filters"]: trial.costs["parameters"] for trial in trials}
    assert weights[8] > 3 * weights[4] > 0
    front = search.store.journal.pareto_front()

    def beats(one, other):
        ours, theirs = ((-trial.best["val/dice"], trial.costs["parameters"]) for trial in (one, other))
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))

    assert front == [trial.name for trial in trials if not any(beats(other, trial) for other in trials)]


def test_the_cases_are_read_once_where_memory_has_them(search, searched, records, tmp_path):
    """The files are overwritten with zeros: whoever read one would fail."""
    folder = tmp_path / "records"
    shutil.copytree(records.folder, folder)
    contents = read_contents(records)  # read before the files are overwritten
    for file in folder.glob("*.tfrecord"):
        file.write_bytes(bytes(file.stat().st_size))
    trials, _ = search(
        contents=lambda: contents,
        records=folder,
        tune__num_samples=2,
        tune__epochs=2,
        tune__space=LEARNING_RATE,
        tune__scheduler=NO_SCHEDULER,
    )
    assert [trial.state for trial in trials] == ["completed"] * 2
    for trial, other in zip(trials, searched[0], strict=False):
        assert trial.values == other.values
        assert [epoch["train/loss"] for epoch in trial.history] == pytest.approx(
            [epoch["train/loss"] for epoch in other.history], rel=1e-5
        )


@pytest.mark.usefixtures("nodes")
def test_a_local_cluster_listens_on_the_loopback_address_alone():
    ray = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # of a test before
            if any(name in " ".join(process.cmdline()) for name in ("raylet", "gcs_server")):
                ray.append(process)
    assert ray
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in ray
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert all(ipaddress.ip_address(address).is_loopback for address in listening)
