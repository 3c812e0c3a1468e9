"""Searches in which a trial, its process, the user or the tracker breaks off."""

import os
import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest

from mis.ports import free_port
from mis.settings import Settings
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.track.mlflow import MlflowTracker
from mis.track.server import start_server, wait_until_ready
from mis.tune.console.table import StudyConsole
from mis.tune.trial import best_trial
from tests.tune.ray.conftest import LEARNING_RATE, NO_SCHEDULER

pytestmark = pytest.mark.slow


def after_epoch(folder, number, action):
    """Do something in a thread once a trial of a study below a folder has had so many epochs."""

    def wait():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if any(int(path.name[-4:]) >= number for path in folder.glob("tune/*/trials/*/epoch-*")):
                action()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_ctrl_c_ends_a_search_and_is_no_success(search, tmp_path):
    """Ray Tune would end it as if it were complete."""
    after_epoch(tmp_path, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    tracker = MemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        search(tracker=tracker, tune__num_samples=50, tune__epochs=100, train__patience=100, tune__space=LEARNING_RATE)
    _, *children = tracker.runs
    assert children
    assert "RUNNING" not in {child.status for child in children}
    assert "KILLED" in {child.status for child in children}


def is_trial(process):
    """Return whether a process of this test's cluster has a trial."""
    try:
        return "ImplicitFunc.train" in " ".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return False


def test_a_trial_whose_process_is_killed_goes_on(search, tmp_path):
    """It resumes after its last checkpoint: no epoch is lost or counted twice."""
    killed = threading.Event()

    def kill_a_trial():
        deadline = time.monotonic() + 60
        while not killed.is_set() and time.monotonic() < deadline:  # between two epochs it has another name
            for process in psutil.Process().children(recursive=True):
                if is_trial(process):
                    process.kill()
                    killed.set()

    thread = after_epoch(tmp_path, 4, kill_a_trial)
    trials, tracker = search(
        tune__num_samples=1,
        tune__epochs=30,
        train__patience=30,
        tune__max_failures=1,
        tune__space=LEARNING_RATE,
        tune__scheduler=NO_SCHEDULER,
    )
    thread.join()
    assert killed.is_set()
    (trial,) = trials
    assert trial.state == "completed"
    assert len(trial.history) == 30
    (run,) = tracker.runs[1:]
    assert [step for step, _ in run.metrics["val/dice"]] == list(range(1, 31))


def test_a_server_that_goes_away_and_comes_back_has_every_epoch_of_every_trial(search, tmp_path, monkeypatch):
    """MLflow's server is killed in the first epochs, and comes back once a call has failed."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    uri, port, log = f"sqlite:///{tmp_path}/mlruns/mlflow.db", free_port(), tmp_path / "server.log"
    (tmp_path / "mlruns").mkdir()
    settings = Settings(root=tmp_path, workspace=tmp_path, tracking_uri=f"http://127.0.0.1:{port}")
    failed, restarted = threading.Event(), []
    say = StudyConsole.say
    monkeypatch.setattr(StudyConsole, "say", lambda self, line: (say(self, line), failed.set()))
    with log.open("wb") as out:
        first = start_server(uri, port, out)
        wait_until_ready(first, settings.tracking_uri, log)

        def outage():
            os.killpg(first.pid, signal.SIGKILL)
            assert failed.wait(120)
            restarted.append(start_server(uri, port, out))

        thread = after_epoch(tmp_path, 2, outage)
        try:
            tracker = MlflowTracker(settings)
            trials, _ = search(
                tracker=tracker,
                study=tracker.start_run(TUNE, "study"),
                tune__num_samples=3,
                tune__epochs=20,
                train__patience=20,
                tune__space=LEARNING_RATE,
                tune__scheduler=NO_SCHEDULER,
            )
            thread.join()
            assert restarted
            runs = tracker.client.search_runs([tracker.experiment_id(TUNE)])
            children = [run for run in runs if "mis.trial" in run.data.tags]
            assert [trial.state for trial in trials] == ["completed"] * 3
            assert sorted(run.data.tags["mis.trial"] for run in children) == ["000", "001", "002"]
            assert {run.info.status for run in children} == {"FINISHED"}
            for run in children:
                history = tracker.client.get_metric_history(run.info.run_id, "val/dice")
                assert [point.step for point in history] == list(range(1, 21))
        finally:
            for process in (first, *restarted):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_a_trial_that_raises_fails_alone(search):
    """A depth of 5 halves 16 voxels to less than one: no such network can be built."""
    trials, tracker = search(
        tune__num_samples=2,
        tune__epochs=1,
        tune__max_failures=0,
        data__multiple=32,
        tune__space={"model.depth": {"type": "choice", "values": [1, 5]}},
        tune__sampler={"name": "grid", "seed": 1},
    )
    states = {trial.values["model.depth"]: set() for trial in trials}
    for trial in trials:
        states[trial.values["model.depth"]].add(trial.state)
    assert states == {1: {"completed"}, 5: {"failed"}}
    failed = next(trial for trial in trials if trial.state == "failed")
    assert failed.error
    assert failed.best == {}
    run = next(run for run in tracker.runs if run.params.get("model.depth") == "5")
    assert run.status == "FAILED"
    assert run.tags["mis.error"] == failed.error
    assert best_trial(trials).values["model.depth"] == 1


def test_values_that_do_not_go_together_fail_their_trial_alone(search):
    """Each is possible by itself: 4 or 8 filters, 4 or 8 groups. 8 groups of 4 filters are not."""
    trials, _ = search(
        tune__num_samples=4,
        tune__epochs=1,
        tune__max_failures=0,
        model__norm="group",
        model__base_filters=8,
        tune__sampler={"name": "grid", "seed": 0},
        tune__space={
            "model.base_filters": {"type": "choice", "values": [4, 8]},
            "model.groups": {"type": "choice", "values": [4, 8]},
        },
    )
    assert len(trials) == 4
    for trial in trials:
        impossible = trial.values["model.groups"] > trial.values["model.base_filters"]
        assert trial.state == ("failed" if impossible else "completed")
    assert {trial.state for trial in trials} == {"failed", "completed"}
    errors = {trial.error for trial in trials if trial.state == "failed"}
    assert all("groups must divide base_filters" in error for error in errors), errors
