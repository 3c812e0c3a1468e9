"""Trainings, searches and scaling while MLflow's server is away: real commands, and a real server behind a proxy."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mis.settings import load_settings
from mis.track.base import TRAIN, TUNE, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.outbox import LOG, outboxes, read_refused
from mis.track.recording import open_tracker
from mis.track.sync import sync as sync_outboxes
from tests import searches
from tests.outages import Proxy
from tests.trainings import EPOCHS, arguments, environment, wait_for_some_epochs

pytestmark = pytest.mark.slow

SOON = """
import sys
from mis.track import recording
recording.PATIENCE_S = recording.SHORT_PATIENCE_S = {patience_s}
from mis.{command}.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""A command that waits for the server at its end for some seconds only."""


@pytest.fixture
def proxy(server_uri):
    proxy = Proxy(server_uri)
    yield proxy
    proxy.resume()
    proxy.down()


@pytest.fixture
def store(server_uri, tmp_path):
    """The server itself, to look at what it has."""
    return MlflowTracker(load_settings({"MIS_ROOT": str(tmp_path / "reader"), "MLFLOW_TRACKING_URI": server_uri}))


def start_training(warm, project, uri, seed, *, patience_s=120.0, **env):
    """Start a training whose seed tells its run from those of other tests."""
    source = SOON.format(patience_s=patience_s, command="train")
    env = environment(MLFLOW_TRACKING_URI=uri, **env)
    return warm.start(*arguments(train__seed=seed), source=source, cwd=project, env=env)


def sync(warm, project, uri, *folder, code=0):
    """Run `python -m mis.track sync` and return what it prints."""
    env = environment(MLFLOW_TRACKING_URI=uri)
    process = warm.start("sync", *folder, module="mis.track", cwd=project, env=env)
    output, errors = process.communicate()
    assert process.returncode == code, (output, errors)
    return output


def runs_of(store, seed):
    experiment = store.experiment_id(TRAIN)
    return [] if experiment is None else list(store.client.search_runs([experiment], f"params.`train.seed` = '{seed}'"))


def assert_recorded_once(store, seed):
    """Check that a training has one run, with all its epochs once, and return it."""
    (run,) = runs_of(store, seed)
    assert run.info.status == "FINISHED"
    points = store.client.get_metric_history(run.info.run_id, "val/dice")
    assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))
    times = [point.timestamp for point in sorted(points, key=lambda point: point.step)]
    assert run.info.start_time <= times[0] <= times[-1] <= run.info.end_time
    assert times == sorted(times)
    assert [file.path for file in store.client.list_artifacts(run.info.run_id, "model")] == ["model/best.keras"]
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name
    return run


def ended_well(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output, errors


def pause_after_some_epochs(process, project):
    wait_for_some_epochs(process, project)
    process.send_signal(signal.SIGSTOP)


# ---- The five ways ----


def test_a_server_that_was_never_there_is_said_at_the_start_in_one_line(warm, project, proxy):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy.down()
        for uri in (proxy.uri, f"http://127.0.0.1:{silent.getsockname()[1]}"):
            began = time.monotonic()
            process = start_training(warm, project, uri, 100)
            _, errors = process.communicate()
            assert time.monotonic() - began < 10
            assert process.returncode == 2
            (line,) = [line for line in errors.splitlines() if "MLFLOW_TRACKING_URI" in line]
            assert line.startswith("error: MLFLOW_TRACKING_URI must name a server that answers")
            assert "Traceback" not in errors
    assert not (project / "checkpoints").exists() or not list(project.glob("checkpoints/train/*/epoch-*"))


def test_offline_all_is_kept_and_delivered_from_a_copy_too_and_twice_is_the_same(warm, project, proxy, store, tmp_path):
    proxy.down()
    process = start_training(warm, project, proxy.uri, 101, patience_s=0.1, MIS_OFFLINE="1")
    output, errors = ended_well(process)
    assert "best validation Dice" in output
    assert "the model and its curves: waiting in" in output
    (line,) = [line for line in errors.splitlines() if "python -m mis.track sync" in line]
    assert "of 1 run wait in" in line
    assert runs_of(store, 101) == []
    # As a compute node without a network would have it copied to one that has one.
    copied = tmp_path / "elsewhere" / "copied"
    shutil.copytree(project / "mlruns" / "outbox", copied)
    assert "does not answer" in sync(warm, project, proxy.uri, code=1)
    proxy.up()
    sync(warm, project, proxy.uri, copied)
    once = assert_recorded_once(store, 101)
    assert list(copied.iterdir()) == []
    sync(warm, project, proxy.uri)
    again = assert_recorded_once(store, 101)
    assert (again.info, again.data.params, again.data.metrics, again.data.tags) == (
        once.info, once.data.params, once.data.metrics, once.data.tags,
    )  # fmt: skip
    assert "nothing waits" in sync(warm, project, proxy.uri)
    sync(warm, project, proxy.uri, tmp_path / "none", code=2)
    assert list((project / "mlruns" / "outbox").iterdir()) == []


def test_a_server_that_is_lost_for_good_lets_the_training_end_well(warm, project, proxy, store):
    process = start_training(warm, project, proxy.uri, 102, patience_s=1.0)
    pause_after_some_epochs(process, project)
    proxy.down()
    process.send_signal(signal.SIGCONT)
    output, errors = ended_well(process)
    assert "best validation Dice" in output
    assert errors.count("does not answer") >= 1
    (line,) = [line for line in errors.splitlines() if "python -m mis.track sync" in line]
    assert "nothing is lost" in line
    proxy.up()
    sync(warm, project, proxy.uri)
    assert_recorded_once(store, 102)


def test_a_server_that_is_lost_and_back_gets_all_by_itself(warm, project, proxy, store):
    process = start_training(warm, project, proxy.uri, 103)
    pause_after_some_epochs(process, project)
    proxy.down()
    process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 120
    while "does not answer" not in (process.folder / "err").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    proxy.up()
    _, errors = ended_well(process)
    assert "answers again" in errors
    run = assert_recorded_once(store, 103)
    assert run.info.run_id in process.communicate()[0]
    assert list((project / "mlruns" / "outbox").iterdir()) == []


def test_a_server_that_comes_after_the_start_gets_all_by_itself(warm, project, proxy, store):
    proxy.down()
    process = start_training(warm, project, proxy.uri, 104, MIS_OFFLINE="1")
    wait_for_some_epochs(process, project)
    proxy.up()
    ended_well(process)
    assert_recorded_once(store, 104)
    assert list((project / "mlruns" / "outbox").iterdir()) == []


def test_killed_during_the_outage_a_training_goes_on_in_its_run(warm, project, proxy, store):
    first = start_training(warm, project, proxy.uri, 105)
    pause_after_some_epochs(first, project)
    proxy.down()
    first.send_signal(signal.SIGCONT)
    deadline, before = time.monotonic() + 120, newest_epoch(project)
    while newest_epoch(project) <= before:
        assert first.poll() is None, "it has ended before the kill"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first.kill()
    first.communicate()
    assert outboxes(project / "mlruns" / "outbox"), "what the killed process has logged waits"
    proxy.up()
    ended_well(start_training(warm, project, proxy.uri, 105))
    assert_recorded_once(store, 105)
    assert list((project / "mlruns" / "outbox").iterdir()) == []


def newest_epoch(project):
    return max((int(path.name[-4:]) for path in project.glob("checkpoints/train/*/epoch-*")), default=0)


def test_a_search_whose_driver_is_killed_during_the_outage_goes_on_and_has_each_trial_once(
    warm, project, proxy, store, tmp_path
):
    name = f"outage-{tmp_path.name.lower().replace('_', '-')}"
    sets = [
        "tune.num_samples=6", "tune.epochs=6", "train.patience=6", "model.depth=1", "model.base_filters=4",
        "model.norm=none", "tune.scheduler.name=none", searches.LEARNING_RATE,
    ]  # fmt: skip
    env = {"MLFLOW_TRACKING_URI": proxy.uri}
    process = searches.start(warm, project, "--name", name, sets=sets, **env)
    trials = project / "checkpoints" / "tune" / name / "trials"
    searches.wait_until(process, lambda: list(trials.glob("*/epoch-0002")))
    proxy.down()
    searches.wait_until(process, lambda: len(list(trials.glob("*/outcome.json"))) >= 2)
    searches.kill(process)
    assert outboxes(project / "mlruns" / "outbox")
    # Without the server at first: the search ends well all the same.
    process = searches.start(warm, project, "--resume", name, **env, MIS_OFFLINE="1")
    searches.wait_until(process, lambda: len(list(trials.glob("*/outcome.json"))) >= 4)
    proxy.up()
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"study {name}" in output
    experiment = store.experiment_id(TUNE)
    runs = list(store.client.search_runs([experiment], f"tags.`mis.study` = '{name}'"))
    (study,) = [run for run in runs if "mis.trial" not in run.data.tags]
    children = [run for run in runs if "mis.trial" in run.data.tags]
    assert sorted(run.data.tags["mis.trial"] for run in children) == [f"{number:03d}" for number in range(6)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {study.info.run_id}
    for run in children:
        points = store.client.get_metric_history(run.info.run_id, "val/dice")
        assert [point.step for point in points] == list(range(1, 7))
    assert list((project / "mlruns" / "outbox").iterdir()) == []


def test_a_simulation_offline_ends_well_and_says_what_waits(project, proxy):
    proxy.down()
    source = SOON.format(patience_s=0.1, command="scaling")
    command = [sys.executable, "-c", source, "simulate", "--devices", "1,2"]
    env = environment(MLFLOW_TRACKING_URI=proxy.uri, MIS_OFFLINE="1", MIS_ROOT=str(project))
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "of 4 runs wait in" in done.stderr


# ---- What a server may do to a request ----


@pytest.fixture
def settings(tmp_path, proxy):
    return load_settings({"MIS_ROOT": str(tmp_path / "root"), "MLFLOW_TRACKING_URI": proxy.uri})


def log_a_run(tracker, key):
    with tracked(tracker.open_run(TRAIN, "run", key={"mis.run_key": key}, params={"rate": 1})) as run:
        for epoch in range(3):
            run.log_metrics({"dice": epoch / 10}, epoch)
        run.set_tags({"state": "done"})


def assert_one_run(store, key):
    (run,) = store._search(TRAIN, [f"tags.`mis.run_key` = '{key}'"])
    points = store.client.get_metric_history(run.info.run_id, "dice")
    assert [(point.step, point.value) for point in points] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "done")


@pytest.mark.parametrize("lost", ["runs/create", "runs/log-batch", "runs/update", "experiments/get-by-name"])
def test_an_answer_that_is_lost_doubles_nothing(settings, proxy, store, lost):
    """A 500 after the server has done what it was asked to; a run that was made is found, and not made again."""
    seen = []

    def loses(path):
        if lost in path and len(seen) < 2:
            seen.append(path)
            return True
        return False

    with open_tracker(settings) as tracker:
        proxy.loses = loses
        log_a_run(tracker, f"lost-{lost}")
    assert len(seen) == (1 if lost == "runs/create" else 2)
    assert_one_run(store, f"lost-{lost}")
    assert list(settings.outboxes.iterdir()) == []


@pytest.mark.parametrize("turned", ["runs/create", "runs/log-batch", "runs/update"])
def test_what_a_proxy_turns_away_for_a_while_arrives(settings, proxy, store, turned):
    """A bare 400, as while the proxy is set up anew."""
    seen, said = [], []
    with open_tracker(settings, said.append) as tracker:
        proxy.turns_away = lambda path: turned in path and len(seen) < 3 and not seen.append(path)
        log_a_run(tracker, f"turned-{turned}")
    assert len(seen) == 3
    assert not any("refuses" in line for line in said)
    assert_one_run(store, f"turned-{turned}")
    assert list(settings.outboxes.iterdir()) == []


def test_what_a_proxy_never_takes_is_refused_after_the_rest_was_taken(settings, proxy, store):
    said = []
    with open_tracker(settings, said.append) as tracker:
        run = tracker.open_run(TRAIN, "run", key={"mis.run_key": "never"})
        while run.id is None:
            time.sleep(0.01)
        # Before there are other operations that go through, it is only tried again.
        proxy.turns_away = lambda path: "mlflow-artifacts" in path
        settings.root.mkdir(exist_ok=True)
        (settings.root / "model.keras").write_text("weights")
        run.log_file(settings.root / "model.keras", "model")
        asked = sum("mlflow-artifacts" in path for path in proxy.paths)
        proxy.wait_until_asked("mlflow-artifacts", asked + 1)
        for epoch in range(3):
            run.log_metrics({"dice": epoch / 10}, epoch)
            run.log_params({f"p{epoch}": epoch})
            run.set_tags({f"t{epoch}": "x"})
        run.set_tags({"state": "done"})
        run.finish()
    assert_one_run(store, "never")
    (refused,) = settings.outboxes.glob("*/refused.jsonl")
    assert [refusal.operation.kind for refusal in read_refused(refused.parent)] == ["file"]
    proxy.turns_away = lambda path: False  # noqa: ARG005
    assert sync_outboxes(settings, None, said.append, refused=True) == 0
    (run,) = store._search(TRAIN, ["tags.`mis.run_key` = 'never'"])
    assert [file.path for file in store.client.list_artifacts(run.info.run_id, "model")] == ["model/model.keras"]
    assert (run.info.status, list(settings.outboxes.iterdir())) == ("FINISHED", [])


def test_a_run_that_is_started_without_an_outbox_is_one_too(settings, proxy, store):
    """As that of an evaluation."""
    tracker, seen = MlflowTracker(settings), []
    proxy.loses = lambda path: path.endswith("runs/create") and not seen and not seen.append(path)
    tracker.start_run(TRAIN, "run", tags={"test": "direct"}).finish()
    assert seen
    (run,) = store._search(TRAIN, ["tags.test = 'direct'"])
    assert run.info.status == "FINISHED"


def test_a_request_that_the_server_carries_out_after_it_was_given_up_doubles_nothing(
    settings, proxy, store, monkeypatch
):
    """The request to make a run is held back until its repetition has made one."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    held, repeated = [], threading.Event()
    pass_on = proxy.pass_on

    def hold_back(request):
        if request.path.endswith("runs/create"):
            held.append(request)
            if len(held) == 1:
                assert repeated.wait(60)
        pass_on(request)
        if len(held) == 2 and request is held[1]:
            repeated.set()

    monkeypatch.setattr(proxy, "pass_on", hold_back)
    with open_tracker(settings) as tracker:
        run = tracker.open_run(TRAIN, "run", key={"mis.run_key": "held"}, params={"rate": 1})
        assert repeated.wait(60)
        while len(list(store._search(TRAIN, ["tags.`mis.run_key` = 'held'"]))) < 2:
            time.sleep(0.01)
        for epoch in range(3):
            run.log_metrics({"dice": epoch / 10}, epoch)
        run.set_tags({"state": "done"})
        run.finish()
    assert_one_run(store, "held")


def test_a_slow_server_is_given_more_time(settings, proxy, store, monkeypatch):
    """It goes on with a request that was given up: asked for it again and again, it would get nowhere."""
    monkeypatch.setattr("mis.track.mlflow.SENDS_S", (1, 20))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    asked, pass_on = [], proxy.pass_on

    def pass_on_late(request):
        asked.append(request.path)
        time.sleep(1.5)
        pass_on(request)

    with open_tracker(settings) as tracker:
        monkeypatch.setattr(proxy, "pass_on", pass_on_late)
        run = tracker.open_run(TRAIN, "run", key={"mis.run_key": "slow"}, params={"rate": 1})
        for epoch in range(3):
            run.log_metrics({"dice": epoch / 10}, epoch)
        run.set_tags({"state": "done"})
        run.finish()
    assert asked[0] == asked[1]
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"
    assert_one_run(store, "slow")


def test_a_report_returns_while_the_server_hangs(settings, proxy, store):
    """The server goes on only after the reports have returned."""
    with open_tracker(settings) as tracker:
        proxy.hang()
        before = len(proxy.paths)
        run = tracker.open_run(TRAIN, "run", key={"mis.run_key": "hangs"})
        proxy.wait_until_asked("", before)
        for epoch in range(3):
            run.log_metrics({"dice": epoch / 10}, epoch)
        run.set_tags({"state": "done"})
        run.finish()
        proxy.resume()
    assert_one_run(store, "hangs")


def test_what_the_server_refuses_is_kept_and_the_rest_arrives(settings, store):
    said = []
    with open_tracker(settings, said.append) as tracker:
        run = tracker.open_run(TRAIN, "run", key={"mis.run_key": "refused"})
        run.log_metrics({"a name with a \n line break": 1.0})
        run.log_params({"x" * 300: 1})
        for epoch in range(3):
            run.log_metrics({"dice": epoch / 10}, epoch)
        run.set_tags({"state": "done"})
        run.finish()
    assert_one_run(store, "refused")
    assert len([line for line in said if "refuses" in line]) == 2
    (refused,) = settings.outboxes.glob("*/refused.jsonl")
    assert [kept.operation.kind for kept in read_refused(refused.parent)] == ["metrics", "params"]
    assert not list(settings.outboxes.glob(f"*/{LOG}"))
