"""Searches on a real Ray cluster, with real trainings, small."""

import ipaddress
import os
import shutil
import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest

from mis.data.records.reader import read_contents
from mis.ports import free_port
from mis.settings import Settings
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.track.mlflow import MlflowTracker
from mis.track.server import start_server, wait_until_ready
from mis.train.allocate import allocate
from mis.tune.console.table import StudyConsole
from mis.tune.ray.driver import run_study
from mis.tune.study.store import StudyStore
from mis.tune.trial import best_trial

pytestmark = pytest.mark.slow


@pytest.fixture
def search(nodes, records, tiny_params, tmp_path):
    """Run a study with some parameters replaced; return its trials and what was tracked."""

    def run(tracker=None, contents=None, folder=records.folder, study=None, **values):
        params = tiny_params.override({name.replace("__", "."): value for name, value in values.items()})
        tracker = tracker or MemoryTracker()
        study = study or tracker.start_run(TUNE, "study")
        share = allocate(nodes, params.tune.devices_per_trial)
        store = StudyStore.create(tmp_path / "tune" / f"study-{study.id}", params)
        with store.locked():
            trials = run_study(store, share, records=folder, contents=contents, tracker=tracker, study=study)
        run.store = store
        return trials, tracker

    return run


NO_SCHEDULER = {"name": "none", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 1}
LEARNING_RATE = {"train.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}


def test_every_trial_is_tracked_below_its_study(search):
    trials, tracker = search(
        tune__num_samples=3,
        tune__epochs=2,
        tune__space=LEARNING_RATE,
        tune__scheduler=NO_SCHEDULER,
    )
    study, *children = tracker.runs
    children.sort(key=lambda run: run.tags["mis.trial"])
    assert [trial.state for trial in trials] == ["completed"] * 3
    assert [child.parent for child in children] == [study.id] * 3
    assert {child.status for child in children} == {"FINISHED"}
    for trial, child in zip(trials, children, strict=True):
        assert 1e-3 <= trial.values["train.learning_rate"] <= 1e-2
        assert child.params["train.learning_rate"] == str(trial.values["train.learning_rate"])
        assert [step for step, _ in child.metrics["val/dice"]] == [1, 2]
        assert [value for _, value in child.metrics["val/dice"]] == [epoch["val/dice"] for epoch in trial.history]
        assert trial.best_model.is_file()


def test_a_scheduler_stops_the_worse(search):
    trials, tracker = search(
        tune__num_samples=5,
        tune__epochs=4,
        tune__space={"train.learning_rate": {"type": "choice", "values": [1e-9, 1e-2]}},
        tune__scheduler={**NO_SCHEDULER, "name": "asha", "reduction_factor": 4},
    )
    assert "stopped" in {trial.state for trial in trials}
    for trial in trials:
        assert len(trial.history) == 4 if trial.state == "completed" else len(trial.history) < 4
    assert {run.status for run in tracker.runs[1:]} == {"FINISHED"}


def test_a_trial_that_raises_fails_alone(search):
    """A depth of 5 halves 16 voxels to less than one: no such network can be built."""
    trials, tracker = search(
        tune__num_samples=4,
        tune__epochs=1,
        tune__max_failures=0,
        data__multiple=32,
        tune__space={"model.depth": {"type": "choice", "values": [1, 5]}},
        tune__sampler={"name": "random", "seed": 1},
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
        tune__num_samples=6,
        tune__epochs=1,
        tune__max_failures=0,
        model__norm="group",
        model__base_filters=8,
        tune__sampler={"name": "random", "seed": 0},
        tune__space={
            "model.base_filters": {"type": "choice", "values": [4, 8]},
            "model.groups": {"type": "choice", "values": [4, 8]},
        },
    )
    assert len(trials) == 6
    for trial in trials:
        impossible = trial.values["model.groups"] > trial.values["model.base_filters"]
        assert trial.state == ("failed" if impossible else "completed")
    assert {trial.state for trial in trials} == {"failed", "completed"}
    errors = {trial.error for trial in trials if trial.state == "failed"}
    assert all("groups must divide base_filters" in error for error in errors), errors


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
        tune__epochs=60,
        train__patience=60,
        tune__max_failures=1,
        tune__space=LEARNING_RATE,
        tune__scheduler=NO_SCHEDULER,
    )
    thread.join()
    assert killed.is_set()
    (trial,) = trials
    assert trial.state == "completed"
    assert len(trial.history) == 60
    (run,) = tracker.runs[1:]
    assert sorted({step for step, _ in run.metrics["val/dice"]}) == list(range(1, 61))


@pytest.mark.parametrize("scheduler", ["median", "hyperband"])
def test_other_schedulers_stop_the_worse_too(search, scheduler):
    trials, tracker = search(
        tune__num_samples=6,
        tune__epochs=4,
        tune__space={"train.learning_rate": {"type": "choice", "values": [1e-9, 1e-2]}},
        tune__sampler={"name": "random", "seed": 0},
        tune__scheduler={**NO_SCHEDULER, "name": scheduler},
    )
    assert len(trials) == 6
    assert "stopped" in {trial.state for trial in trials}
    assert {run.status for run in tracker.runs[1:]} == {"FINISHED"}
    children = sorted(tracker.runs[1:], key=lambda run: run.tags["mis.trial"])
    for trial, run in zip(trials, children, strict=True):
        assert [step for step, _ in run.metrics["val/dice"]] == list(range(1, len(trial.history) + 1))


@pytest.mark.parametrize(
    ("budget", "most"), [({"tune__hours": 0.004}, 39), ({"tune__target_dice": 1e-6}, 4)], ids=["time", "target"]
)
def test_a_study_ends_when_its_budget_is_spent(search, budget, most):
    trials, tracker = search(tune__num_samples=40, tune__epochs=3, tune__space=LEARNING_RATE, **budget)
    assert 0 < len(trials) <= most
    assert "RUNNING" not in {run.status for run in tracker.runs[1:]}


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


def test_the_models_of_the_best_are_kept(search):
    trials, _ = search(tune__num_samples=4, tune__epochs=1, tune__keep=2, tune__space=LEARNING_RATE)
    kept = {trial.name for trial in trials if trial.best_model is not None}
    best = sorted(trials, key=lambda trial: (-trial.best["val/dice"], trial.name))[:2]
    assert kept == {trial.name for trial in best}
    assert best_trial(trials).best_model.is_file()


def test_two_objectives_and_two_trials_on_a_device(search):
    """Dice and the number of weights, which follows from the filters; four trials at once on two cores."""
    trials, _ = search(
        tune__num_samples=8,
        tune__epochs=1,
        tune__devices_per_trial=0.5,
        tune__second_objective="parameters",
        tune__sampler={"name": "nsga2", "seed": 0},
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


def test_a_population_goes_on_from_its_best(search):
    trials, tracker = search(
        tune__num_samples=4,
        tune__epochs=4,
        tune__sampler={"name": "random", "seed": 3},
        tune__scheduler={**NO_SCHEDULER, "name": "pbt", "interval_epochs": 2},
        tune__space={"train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}},
    )
    assert [(trial.state, len(trial.history)) for trial in trials] == [("completed", 4)] * 4
    assert all(1e-5 <= trial.values["train.learning_rate"] <= 1e-2 for trial in trials)
    children = sorted(tracker.runs[1:], key=lambda run: run.tags["mis.trial"])
    changed = 0
    for trial, run in zip(trials, children, strict=True):
        assert [step for step, _ in run.metrics["val/dice"]] == [1, 2, 3, 4]
        rates = [value for _, value in run.metrics["now/train.learning_rate"]]
        assert str(rates[0]) == run.params["train.learning_rate"]
        assert rates[-1] == trial.values["train.learning_rate"]
        if rates[0] != rates[-1]:
            assert run.tags["mis.changed.train.learning_rate"] == str(rates[-1])
            donors = {value for _, value in run.metrics["now/cloned_from"]}
            assert donors <= {float(other.name) for other in trials if other is not trial}
            changed += 1
    assert changed, "the worst go on from the best"


def test_the_cases_are_read_once_where_memory_has_them(search, records, tmp_path):
    """The files are overwritten with zeros: whoever read one would fail."""
    folder = tmp_path / "records"
    shutil.copytree(records.folder, folder)
    contents = read_contents(records)  # read before the files are overwritten
    for file in folder.glob("*.tfrecord"):
        file.write_bytes(bytes(file.stat().st_size))
    own = {"tune__num_samples": 2, "tune__epochs": 2, "tune__space": LEARNING_RATE, "tune__scheduler": NO_SCHEDULER}
    trials, _ = search(contents=lambda: contents, folder=folder, **own)
    expected, _ = search(**own)
    assert [trial.state for trial in trials] == ["completed"] * 2
    for trial, other in zip(trials, expected, strict=True):
        assert [epoch["train/loss"] for epoch in trial.history] == pytest.approx(
            [epoch["train/loss"] for epoch in other.history], rel=1e-5
        )


@pytest.mark.usefixtures("nodes")
def test_a_local_cluster_listens_on_the_loopback_address_alone():
    ray = [
        process
        for process in psutil.Process().children(recursive=True)
        if any(name in " ".join(process.cmdline()) for name in ("raylet", "gcs_server"))
    ]
    assert ray
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in ray
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert all(ipaddress.ip_address(address).is_loopback for address in listening)


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
                tune__num_samples=4,
                tune__epochs=30,
                train__patience=30,
                tune__space=LEARNING_RATE,
                tune__scheduler=NO_SCHEDULER,
            )
            thread.join()
            assert restarted
            runs = tracker.client.search_runs([tracker.experiment_id(TUNE)])
            children = [run for run in runs if "mis.trial" in run.data.tags]
            assert [trial.state for trial in trials] == ["completed"] * 4
            assert sorted(run.data.tags["mis.trial"] for run in children) == ["000", "001", "002", "003"]
            assert {run.info.status for run in children} == {"FINISHED"}
            for run in children:
                history = tracker.client.get_metric_history(run.info.run_id, "val/dice")
                assert [point.step for point in history] == list(range(1, 31))
        finally:
            for process in (first, *restarted):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
