"""What only the MLflow tracker does: a store that moves, many processes, processes that die."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy.exc
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from mis.errors import MisError
from mis.files import DiskFullError
from mis.settings import load_settings
from mis.track import sender
from mis.track.base import tracked
from mis.track.mlflow import MlflowTracker, artifact_repository
from mis.track.outbox import outboxes
from mis.track.process import process_tags
from mis.track.recording import delivered_id, open_tracker

OPEN = """
from mis.settings import load_settings
from mis.track.mlflow import MlflowTracker
tracker = MlflowTracker(load_settings())
"""


@pytest.fixture(scope="module")
def shared_tracker(tmp_path_factory):
    return MlflowTracker(load_settings({"MIS_ROOT": str(tmp_path_factory.mktemp("shared"))}))


def environment(root):
    """Return the environment of a process whose project is at `root`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
        "MIS_ROOT": str(root)
    }


def start(root, program, **options):
    """Start a Python process whose project is at `root`, as a stage of the pipeline would be."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment(root), cwd=Path(__file__).parents[2], **pipes, **options
    )


def run(root, program):
    """Run a Python process to its end and return its output; it must print nothing on stderr."""
    output, errors = (process := start(root, program)).communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return output


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://no-such-host.invalid:5000", "no-such-host.invalid"),
        ("ftp://host/x", "must begin with"),
        ("postgresql://me:secret@host/db", "postgresql://host/db"),
        ("sqlite:////proc/none/mlflow.db", "/proc/none/mlflow.db"),
        ("sqlite:////data/100%25/mlflow.db", "free of %"),
        ("sqlite:///not-a-database", "not-a-database"),
    ],
)
def test_a_bad_uri_is_said_in_one_line_and_soon(tmp_path, uri, says):
    (tmp_path / "not-a-database").write_text("text " * 1000)
    began = time.monotonic()
    with pytest.raises(MisError, match=says) as caught:
        MlflowTracker(load_settings({"MIS_ROOT": str(tmp_path), "MLFLOW_TRACKING_URI": uri}))
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.monotonic() - began < 12


def test_only_the_first_contact_is_impatient(monkeypatch, settings):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with pytest.raises(MisError):
        MlflowTracker(load_settings({"MIS_ROOT": str(settings.root), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.slow
def test_a_relative_store_is_below_the_root_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    env = {"MIS_ROOT": str(tmp_path), "MLFLOW_TRACKING_URI": "sqlite:///mlruns/mine.db"}
    tracker = MlflowTracker(load_settings(env))
    assert (tmp_path / "mlruns" / "mine.db").is_file()
    assert str(tmp_path / "mlruns" / "mine.db") in tracker.location()


def test_artifacts_of_a_server_are_resolved_as_mlflow_does():
    repository = artifact_repository("mlflow-artifacts:/mis/train/x", "http://host:5000")
    assert repository.artifact_uri == "http://host:5000/api/2.0/mlflow-artifacts/artifacts/mis/train/x"


def test_an_experiment_that_was_deleted_in_the_ui_can_be_used_again(shared_tracker):
    shared_tracker.start_run("mis/deleted", "before")
    shared_tracker.client.delete_experiment(shared_tracker.experiment_id("mis/deleted"))
    assert shared_tracker.experiment_id("mis/deleted") is None
    shared_tracker.start_run("mis/deleted", "after")
    assert shared_tracker.experiment_id("mis/deleted") is not None


def test_the_last_study_is_the_newest_run_with_children(shared_tracker):
    assert shared_tracker.last_study("mis/studies") is None
    shared_tracker.start_run("mis/studies", "childless")
    assert shared_tracker.last_study("mis/studies") is None
    for name in ("old", "new"):
        study = shared_tracker.start_run("mis/studies", name)
        time.sleep(0.005)  # a run's start is kept in milliseconds
        trials = []
        for index in range(3):
            trials.append(shared_tracker.start_run("mis/studies", f"trial-{index}", parent=study.id).id)
            time.sleep(0.005)
    assert shared_tracker.last_study("mis/studies") == (study.id, trials)


@pytest.mark.slow
def test_opening_a_store_prints_nothing_even_where_mlflow_came_first(tmp_path):
    registered = "from mlflow.store.artifact import artifact_repository_registry as registry\n"
    registered += "print(registry.get_registered_artifact_repositories()['mlflow-artifacts'].__module__)"
    program = f"import mlflow\n{registered}\n{OPEN}\ntracker.start_run('mis/train', 'first').finish()"
    assert run(tmp_path, program).strip() == "mis.track.mlflow"


@pytest.mark.slow
def test_eight_processes_can_make_the_store_at_once(tmp_path, warm):
    work = "tracker.start_run('mis/race', 'r', params={'a': 1}).log_metrics({'m': 1.0})"
    # They wait for each other: a process takes longer to start than the moment in which the store is missing.
    wait = "import time, pathlib, mlflow\npathlib.Path('{ready}').touch()\n"
    wait += "while not pathlib.Path('{go}').exists(): time.sleep(0.001)\n"
    ready = [tmp_path / f"ready-{index}" for index in range(8)]
    programs = [wait.format(ready=path, go=tmp_path / "go") + OPEN + work for path in ready]
    env = environment(tmp_path / "project")
    processes = [warm.start(source=program, env=env) for program in programs]
    while not all(path.exists() for path in ready):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    (tmp_path / "go").touch()
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 8
    tracker = MlflowTracker(load_settings({"MIS_ROOT": str(tmp_path / "project")}))
    runs = tracker.client.search_runs([tracker.experiment_id("mis/race")])
    assert [recorded.data.metrics["m"] for recorded in runs] == [1.0] * 8


@pytest.mark.slow
def test_the_store_moves_with_the_project(tmp_path):
    old, new = tmp_path / "here", tmp_path / "over there"
    (tmp_path / "figure.txt").write_text("drawn")
    tracker = MlflowTracker(load_settings({"MIS_ROOT": str(old)}))
    first = tracker.start_run("mis/train", "first", tags={"key": "a"})
    first.log_file(tmp_path / "figure.txt", "figures")
    shutil.move(old, new)
    # In another process, because mlflow remembers for each run where its files were.
    program = f"""
import pathlib
client, run = tracker.client, tracker.find_run("mis/train", {{"key": "a"}})
print([entry.path for entry in client.list_artifacts(run.id, "figures")])
print(pathlib.Path(client.download_artifacts(run.id, "figures/figure.txt")).read_text())
run.log_file(pathlib.Path(r"{tmp_path}/figure.txt"), "later")
tracker.start_run("mis/train", "second").log_file(pathlib.Path(r"{tmp_path}/figure.txt"))
"""
    assert run(new, OPEN + program).splitlines() == ["['figures/figure.txt']", "drawn"]
    assert not old.exists()
    files = [path.relative_to(new / "mlruns" / "artifacts" / "mis" / "train") for path in new.rglob("figure.txt")]
    assert sorted(path.parts[2:] for path in files) == [
        ("figure.txt",),
        ("figures", "figure.txt"),
        ("later", "figure.txt"),
    ]


@pytest.mark.slow
def test_the_runs_of_a_killed_process_are_closed_when_the_next_one_starts(settings):
    program = f"""{OPEN}
import time
study = tracker.start_run("mis/tune", "study")
done = tracker.start_run("mis/tune", "done", parent=study.id)
done.finish()
trial = tracker.start_run("mis/tune", "trial", parent=study.id)
time.sleep(0.05)
trial.log_metrics({{"dice": 0.1}}, 0)
print(study.id, done.id, trial.id, flush=True)
time.sleep(600)
"""
    process = start(settings.root, program)
    study, done, trial = process.stdout.readline().split()
    client = MlflowTracker(settings).client
    assert client.get_run(trial).info.status == "RUNNING"  # its process lives
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    MlflowTracker(settings)
    infos = {name: client.get_run(name).info for name in (study, done, trial)}
    assert [infos[name].status for name in (study, done, trial)] == ["KILLED", "FINISHED", "KILLED"]
    last_ms = client.get_metric_history(trial, "dice")[-1].timestamp
    assert infos[trial].end_time == infos[study].end_time == last_ms > infos[trial].start_time


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ({}, "RUNNING"),  # this process
        ({"mis.started_ticks": "1"}, "KILLED"),  # its pid belongs to another process by now
        ({"mis.boot": "", "mis.started_ticks": "", "mis.started": "1000.0"}, "KILLED"),
        ({"mis.pid": "4194305"}, "KILLED"),  # above any pid that Linux gives
        ({"mis.pid": "4194305", "mis.host": "another"}, "RUNNING"),
        ({"mis.pid": "4194305", "mis.pid_namespace": "pid:[1]"}, "RUNNING"),  # a container with this host's name
        ({"mis.pid": "none"}, "RUNNING"),
    ],
)
def test_only_the_runs_of_dead_processes_of_this_host_are_closed(shared_tracker, tags, status):
    recorded = shared_tracker.start_run("mis/train", "run", tags=process_tags() | tags)
    closed = shared_tracker.reconcile()
    assert closed == ([recorded.id] if status == "KILLED" else [])
    assert shared_tracker.client.get_run(recorded.id).info.status == status


def test_a_run_that_goes_on_belongs_to_its_new_process(shared_tracker):
    dead = {"mis.pid": "4194305", "key": "resumed"}
    recorded = shared_tracker.start_run("mis/train", "run", tags=dead)
    assert shared_tracker.reconcile() == [recorded.id]
    shared_tracker.find_run("mis/train", {"key": "resumed"})
    assert shared_tracker.reconcile() == []


# ---- Errors of the database behind MLflow ----


@pytest.fixture
def database_failures(monkeypatch):
    """A function that lets the next writes of MLflow's database fail: as where its connections are all in use."""
    monkeypatch.setattr(sender, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(sender, "LONGEST_PAUSE_S", 0.0)
    flush, left = Session.flush, []

    def failing(session, *arguments, **options):
        if left:
            raise left.pop()
        return flush(session, *arguments, **options)

    monkeypatch.setattr(Session, "flush", failing)
    return lambda error, count: left.extend([error] * count)


PASSING = [
    sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00"),
    sqlalchemy.exc.ResourceClosedError("This Connection is closed"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("during", ["open", "metrics"])
def test_an_error_of_the_database_that_passes_refuses_nothing(settings, database_failures, error, during):
    said = []
    with open_tracker(settings, said.append) as tracker:
        if during == "open":
            database_failures(error, 4)
        with tracked(tracker.open_run("mis/train", "run", key={"key": "a"}, params={"rate": 1})) as run:
            if during == "metrics":
                while run.id is None:
                    time.sleep(0.001)
                database_failures(error, 4)
            for epoch in range(3):
                run.log_metrics({"dice": epoch}, epoch)
    assert not any("refuses" in line for line in said)
    store = MlflowTracker(settings)
    (recorded,) = store._search("mis/train", [])
    points = store.client.get_metric_history(recorded.info.run_id, "dice")
    assert (recorded.info.status, recorded.data.params) == ("FINISHED", {"rate": "1"})
    assert [point.step for point in points] == [0, 1, 2]
    assert list(settings.outboxes.iterdir()) == []


def test_what_the_database_says_to_be_full_is_one_line_of_a_full_disk(settings, database_failures, capfd):
    """The patience of a command is that of minutes: no disk has space a little later."""
    full = sqlalchemy.exc.OperationalError("INSERT INTO runs", {}, sqlite3.OperationalError("database or disk is full"))
    said = []
    with open_tracker(settings, said.append) as tracker:
        database_failures(full, 1_000_000)
        tracker.open_run("mis/train", "run").finish()
    space, waits = said
    assert space.startswith("there is no space for MLflow's store (database or disk is full): what is logged waits in ")
    assert waits.startswith("2 operations of 1 run wait in ")
    assert capfd.readouterr() == ("", "")
    assert len(outboxes(settings.outboxes)) == 1


def test_a_store_that_cannot_be_opened_because_the_disk_is_full_is_one_line(settings, database_failures):
    MlflowTracker(settings).start_run("mis/train", "run", tags=process_tags() | {"mis.pid": "4194305"})
    full = sqlalchemy.exc.OperationalError("UPDATE runs", {}, sqlite3.OperationalError("database or disk is full"))
    database_failures(full, 1_000_000)  # the run of the dead process is to be closed
    with pytest.raises(DiskFullError, match=f"space on the disk of {settings.mlruns}"):
        MlflowTracker(settings)


@contextmanager
def failing_at(statement):
    """Let MLflow's database be full from a statement on, by its number."""
    numbers = count(1)

    def check(*_):
        if next(numbers) >= statement:
            raise sqlite3.OperationalError("database or disk is full")

    event.listen(Engine, "before_cursor_execute", check)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", check)


@pytest.mark.parametrize("statement", [1, 40, 150])
def test_a_store_whose_making_was_cut_off_is_made_by_the_next_command(settings, statement):
    with failing_at(statement), pytest.raises(DiskFullError, match=f"space on the disk of {settings.mlruns}"):
        MlflowTracker(settings)
    run = MlflowTracker(settings).start_run("mis/train", "run")
    assert MlflowTracker(settings).read_run(run.id) is not None
    assert sorted(path.name for path in settings.mlruns.iterdir()) == ["mlflow.db", "mlflow.lock"]


@pytest.mark.parametrize("left_kib", [0, 200, 900])
def test_a_command_on_a_full_disk_makes_the_store_once_there_is_space(small_disk, left_kib):
    settings = load_settings({"MIS_ROOT": str(small_disk("4m"))})
    hog = settings.root / "hog"
    hog.write_bytes(bytes((4096 - left_kib) * 1024))
    with pytest.raises(DiskFullError), open_tracker(settings):
        pytest.fail("it has begun")
    hog.unlink()
    with open_tracker(settings) as tracker, tracked(tracker.open_run("mis/train", "run")) as run:
        pass
    assert delivered_id(run) is not None


def test_what_a_kill_has_left_of_a_store_that_was_being_made_is_removed(settings):
    settings.mlruns.mkdir(parents=True)
    for name in (".unfinished.mlflow.db", ".unfinished.mlflow.db-journal"):
        (settings.mlruns / name).write_bytes(b"half")
    MlflowTracker(settings)
    assert sorted(path.name for path in settings.mlruns.iterdir()) == ["mlflow.db", "mlflow.lock"]


def test_a_store_that_another_program_has_left_half_made_is_one_line(settings):
    settings.mlruns.mkdir(parents=True)
    with closing(sqlite3.connect(settings.mlruns / "mlflow.db")) as database:
        database.execute("CREATE TABLE _alembic_tmp_params (x)")
    with pytest.raises(MisError, match=r"table _alembic_tmp_params already exists, got .*mlflow.db; .*delete one"):
        MlflowTracker(settings)


def test_other_peoples_runs_are_left_alone(shared_tracker):
    shared_tracker.start_run("theirs", "run", tags={"mis.pid": "4194305"})
    assert shared_tracker.reconcile() == []
