"""Workers that fail in every way, on a real Ray cluster; and a training that survives it."""

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest

from mis.errors import MisError, WorkerError
from mis.ports import free_port
from mis.settings import Settings
from mis.track.base import TRAIN
from mis.track.mlflow import MlflowTracker
from mis.train.gang import run_gang

pytestmark = [
    pytest.mark.slow,
]


# ---- What becomes of workers that fail ----


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def refuse():
    raise MisError("the rule", got=3)


def fail():
    raise ValueError("nonsense")


WAYS = {"die": die, "stop": stop, "refuse": refuse, "raise": fail}


def fail_in_turn(worker, folder, ways):
    """Fail in another way with each start: which start this is, the files say. Worker 1 fails, or the chief."""
    start = len(list(folder.glob(f"{worker.rank}-*")))
    (folder / f"{worker.rank}-{start}").touch()
    way = ways[start]
    if worker.is_chief:
        worker.report(f"start {start}")
    if way == "stall":
        worker.progress()
    if worker.is_chief == way.startswith("chief: "):
        WAYS.get(way.removeprefix("chief: "), lambda: None)()
    if not way.startswith("return"):
        time.sleep(120)
    if way == "return a lock":
        return threading.Lock()
    return f"{worker.name}, {worker.count} workers, {len(worker.devices.names)} device, {worker.devices.threads} thread"


def run(folder, ways, **options):
    said, reports = [], []
    given = {"workers": 2, "heartbeat_s": 5, "stall_s": 3, "on_report": reports.append, "on_message": said.append}

    def work(worker):
        return fail_in_turn(worker, folder, ways)

    try:
        result = run_gang(work, **(given | options))
    except (MisError, WorkerError) as error:
        result = error
    return result, said, reports


@pytest.mark.usefixtures("nodes")
def test_workers_that_are_lost_are_started_again(tmp_path):
    begun = time.monotonic()
    result, said, reports = run(tmp_path, ["die", "chief: die", "stop", "stall", "return"], max_restarts=4)
    assert time.monotonic() - begun < 5 * 45  # each is noticed within seconds, and started again
    assert re.fullmatch(r"worker 0 on [\d.]+, 2 workers, 1 device, 1 thread", result)
    # A chief that dies takes with it what it has just reported: who goes on reports what is in the checkpoint.
    assert [report for report in reports if report != "start 1"] == ["start 0", "start 2", "start 3", "start 4"]
    died, chief_died, stopped, stalled = said
    assert re.match(r"worker 0 on [\d.]+ died \(.*\); .*\(2 of 4\)", chief_died)
    assert re.match(r"worker 1 on [\d.]+ died \([^.]*\.\); starting again from the last checkpoint \(1 of 4\)", died)
    assert re.match(r"worker 1 on [\d.]+ sent no heartbeat for 5 s; .*\(3 of 4\)", stopped)
    assert re.match(r"no worker has ended a step for 3 s \(worker 0 on .* after step 1, worker 1 .*\(4 of 4\)", stalled)


@pytest.mark.usefixtures("nodes")
def test_no_more_often_than_allowed(tmp_path):
    error, said, _ = run(tmp_path, ["die", "die"], max_restarts=1)
    assert isinstance(error, WorkerError)
    assert "worker 1" in str(error)
    assert "started again 1 times, which is all that max_restarts allows" in str(error)
    assert len(said) == 1


@pytest.mark.usefixtures("nodes")
def test_what_a_worker_raises_comes_once_with_its_name(tmp_path):
    error, said, _ = run(tmp_path, ["raise"], max_restarts=3)
    assert isinstance(error, WorkerError)
    assert re.match(r"worker 1 on [\d.]+ failed:\nTraceback", str(error))
    assert str(error).count("ValueError: nonsense") == 1
    assert not said


@pytest.mark.usefixtures("nodes")
def test_what_cannot_be_sent_back_is_told_with_the_workers_name(tmp_path):
    error, said, _ = run(tmp_path, ["return a lock"], max_restarts=3)
    assert isinstance(error, WorkerError)
    assert re.match(r"worker 0 on [\d.]+ failed:\n", str(error))
    assert "cannot pickle '_thread.lock' object" in str(error)
    assert not said


@pytest.mark.usefixtures("nodes")
def test_bad_input_is_one_line_with_the_workers_name(tmp_path):
    error, _, _ = run(tmp_path, ["refuse"])
    assert isinstance(error, MisError)
    assert re.fullmatch(r"worker 1 on [\d.]+: the rule, got 3", str(error))


@pytest.mark.usefixtures("nodes")
def test_more_workers_than_devices_are_refused_before_any_starts(tmp_path):
    error, said, reports = run(tmp_path, ["return"], workers=1000)
    assert isinstance(error, MisError)
    assert "got 1000" in str(error)
    assert not said
    assert not reports


# ---- A training on four workers of two nodes, of which a worker and then a node is lost ----


class Cluster:
    """Two nodes of Ray on this machine, with two cores each, whatever it has."""

    def __init__(self, folder):
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("MIS_", "MLFLOW_", "DVC_"))
        }
        self.env |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        # As on a cluster: a head that finds a token in the home folder and a node that does not, do not meet.
        self.env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.port = free_port()
        self.env["RAY_ADDRESS"] = f"127.0.0.1:{self.port}"
        self.folder = folder
        self.raylets = []

    def __enter__(self):
        self.start(
            "--head", f"--port={self.port}", "--include-dashboard=false", f"--ray-client-server-port={free_port()}"
        )
        self.start(f"--address=127.0.0.1:{self.port}")
        return self

    def start(self, *options):
        before = set(ray_processes("raylet"))
        ports = 21000 + 1000 * len(self.raylets)
        command = [Path(sys.executable).with_name("ray"), "start", *options, "--num-cpus=2", "--disable-usage-stats"]
        command += ["--object-store-memory=80000000", f"--min-worker-port={ports}", f"--max-worker-port={ports + 900}"]
        done = subprocess.run(
            command,
            env={name: value for name, value in self.env.items() if name != "RAY_ADDRESS"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.raylets += sorted(set(ray_processes("raylet")) - before, key=lambda process: process.pid)

    def lose_second_node(self):
        raylet = self.raylets[1]
        for process in [raylet, *raylet.children(recursive=True)]:
            process.kill()

    def __exit__(self, *error):
        for process in psutil.process_iter(["cmdline"]):  # all that Ray starts is told the port
            if re.search(rf"[=:]{self.port}\b", " ".join(process.info["cmdline"] or ())):
                process.kill()


def ray_processes(name):
    return [process for process in psutil.process_iter(["name"]) if process.info["name"] == name]


OVERRIDES = (
    "model.depth=1",
    "model.base_filters=4",
    "model.norm=batch",
    "train.batch_size=4",
    "train.learning_rate=2e-4",
)


def command(*overrides):
    own = [part for value in (*OVERRIDES, *overrides) for part in ("--set", value)]
    return [sys.executable, "-m", "mis.train", *own]


def wait_for_epoch(project, number):
    deadline = time.monotonic() + 120
    while not any(int(path.name[-4:]) >= number for path in project.glob("checkpoints/train/*/epoch-*")):
        assert time.monotonic() < deadline, f"epoch {number} never ended"
        time.sleep(0.02)


def members():
    found = psutil.process_iter(["cmdline"])  # None for one that is just ending
    return [process for process in found if "ray::WorkerProcess" in " ".join(process.info["cmdline"] or ())]


def best_model(project, run_id):
    (file,) = project.glob(f"mlruns/artifacts/mis/train/{run_id}/artifacts/model/*.keras")
    return keras.saving.load_model(file)


def test_a_training_outlives_a_worker_and_a_node(project):
    epochs = "train.epochs=12", "train.patience=12"
    with (
        Cluster(project) as cluster,
        subprocess.Popen(
            command("distribute.workers=4", "distribute.heartbeat_s=10", *epochs),
            cwd=project,
            env=cluster.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            wait_for_epoch(project, 3)
            first = members()
            assert len(first) == 4
            first[2].kill()
            lost_at = time.monotonic()
            while len(members()) != 4 or set(members()) & set(first):
                assert time.monotonic() - lost_at < 30, "new workers must be there soon"
                time.sleep(0.1)
            reached = max(int(path.name[-4:]) for path in project.glob("checkpoints/train/*/epoch-*"))
            wait_for_epoch(project, reached + 2)
            cluster.lose_second_node()
            out, err = process.communicate(timeout=240)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, err
    assert "starting again from the last checkpoint (1 of 3)" in err
    assert "starting again from the last checkpoint (2 of 3)" in err
    assert "devices were lost: going on with 2 of 4 workers" in err
    assert "best validation Dice" in out

    undisturbed = subprocess.run(
        command(*epochs), cwd=project, env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}, check=False, capture_output=True
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    settings = Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    tracker = MlflowTracker(settings)
    alone, survived = tracker.client.search_runs([tracker.experiment_id(TRAIN)])
    assert survived.info.status == "FINISHED"
    restarts = [text for name, text in survived.data.tags.items() if name.startswith("mis.restarted.")]
    assert any("going on with 2 of 4 workers" in text for text in restarts)
    steps = [point.step for point in tracker.client.get_metric_history(survived.info.run_id, "val/dice")]
    assert steps == list(range(1, 13))
    # The model of the best epoch, the same in both, after up to 24 steps.
    models = [best_model(project, run.info.run_id) for run in (survived, alone)]
    assert survived.data.metrics["best/epoch"] == alone.data.metrics["best/epoch"]
    # All weights together: of a bias that has just left 0, rounding alone is 1.2e-4 of its own size on some CPUs. One
    # step more or less is 2e-3 of them.
    own, expected = (np.concatenate([weight.ravel() for weight in model.get_weights()]) for model in models)
    assert np.linalg.norm(own - expected) < 1e-4 * np.linalg.norm(expected)
