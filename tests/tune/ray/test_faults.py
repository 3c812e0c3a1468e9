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
from mis.track.base import TUNE, tracked
from mis.track.memory import MemoryTracker
from mis.track.mlflow import MlflowTracker
from mis.track.recording import open_tracker
from mis.track.server import start_server, wait_until_ready
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
        tune__epochs=16,
        train__patience=16,
        tune__max_failures=1,
        tune__space=LEARNING_RATE,
        tune__scheduler=NO_SCHEDULER,
    )
    thread.join()
    assert killed.is_set()
    (trial,) = trials
    assert trial.state == "completed"
    assert len(trial.history) == 16
    (run,) = tracker.runs[1:]
    assert [step for step, _ in run.metrics["val/dice"]] == list(range(1, 17))


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_server_that_goes_away_and_comes_back_has_every_epoch_of_every_trial(search, tmp_path, monkeypatch, how):
    """MLflow's server is killed or stopped in the first epochs, and comes back once a call has failed.

    One that was stopped then carries out what it was asked meanwhile, beside what it is asked once more.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    uri, port, log = f"sqlite:///{tmp_path}/mlruns/mlflow.db", free_port(), tmp_path / "server.log"
    (tmp_path / "mlruns").mkdir()
    settings = Settings(root=tmp_path, workspace=tmp_path, tracking_uri=f"http://127.0.0.1:{port}")
    failed, back, servers = threading.Event(), threading.Event(), []

    def say(line):
        if "does not answer" in line:
            failed.set()

    with log.open("wb") as out:
        servers.append(start_server(uri, port, out))
        wait_until_ready(servers[0], settings.tracking_uri, log)

        def outage():
            os.killpg(servers[0].pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            assert failed.wait(120)
            if how == "killed":
                servers.append(start_server(uri, port, out))
            else:
                os.killpg(servers[0].pid, signal.SIGCONT)
            back.set()

        thread = after_epoch(tmp_path, 2, outage)
        try:
            with open_tracker(settings, say) as tracker, tracked(tracker.open_run(TUNE, "study")) as study:
                trials, _ = search(
                    tracker=tracker,
                    study=study,
                    tune__num_samples=3,
                    tune__epochs=10,
                    train__patience=10,
                    tune__space=LEARNING_RATE,
                    tune__scheduler=NO_SCHEDULER,
                )
            thread.join()
            assert back.is_set()
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
            tracker = MlflowTracker(settings)
            runs = tracker.client.search_runs([tracker.experiment_id(TUNE)])
            children = [run for run in runs if "mis.trial" in run.data.tags]
            assert [trial.state for trial in trials] == ["completed"] * 3
            assert sorted(run.data.tags["mis.trial"] for run in children) == ["000", "001", "002"]
            assert {run.info.status for run in runs} == {"FINISHED"}
            for run in children:
                history = tracker.client.get_metric_history(run.info.run_id, "val/dice")
                assert [point.step for point in history] == list(range(1, 11))
            assert list(settings.outboxes.iterdir()) == []
        finally:
            for process in servers:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def test_trials_that_raise_fail_alone(search):
    """A depth of 5 halves 16 voxels to less than one; 8 groups of 4 filters are not possible either."""
    names = ("model.depth", "model.base_filters", "model.groups")
    points = [dict(zip(names, values, strict=True)) for values in ((5, 8, 4), (1, 4, 4), (1, 4, 8))]
    trials, tracker = search(
        starts=points,
        tune__num_samples=3,
        tune__epochs=1,
        tune__max_failures=0,
        data__multiple=32,
        model__norm="group",
        model__base_filters=8,
        tune__space={name: {"type": "choice", "values": sorted({point[name] for point in points})} for name in names},
    )
    assert [trial.values for trial in trials] == points
    assert [trial.state for trial in trials] == ["failed", "completed", "failed"]
    assert best_trial(trials).values == points[1]
    runs = sorted(tracker.runs[1:], key=lambda run: run.tags["mis.trial"])
    for trial, run in zip(trials[::2], runs[::2], strict=True):
        assert trial.best == {}
        assert trial.error
        assert run.status == "FAILED"
        assert run.tags["mis.error"] == trial.error
    assert "groups must divide base_filters" in trials[2].error
