"""One training with its run in a real MLflow store, killed and begun again."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from mis.settings import Settings
from mis.track.base import TRAIN
from mis.track.mlflow import MlflowTracker

pytestmark = [
    pytest.mark.slow,
]

SMALL = ("model.depth=1", "model.base_filters=4", "train.epochs=60", "train.patience=60")


def command(*overrides):
    own = [part for value in (*SMALL, *overrides) for part in ("--set", value)]
    return [sys.executable, "-m", "mis.train", *own]


def environment(**values):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIS_", "MLFLOW_", "DVC_"))}
    return kept | values


def kill_after_some_epochs(project):
    """Start a training and kill it -9 once it has written a few checkpoints."""
    with subprocess.Popen(command(), cwd=project, env=environment(), stderr=subprocess.DEVNULL) as process:
        wait_for_some_epochs(project)
        process.send_signal(signal.SIGKILL)
    (checkpoint,) = project.glob("checkpoints/train/*/epoch-*")
    return checkpoint


def wait_for_some_epochs(project):
    deadline = time.monotonic() + 120
    while not list(project.glob("checkpoints/train/*/epoch-000[3-9]")):
        assert time.monotonic() < deadline, "no third epoch"
        time.sleep(0.02)


def test_a_training_that_was_killed_goes_on_in_its_run(project):
    checkpoint = kill_after_some_epochs(project)
    before = len(json.loads((checkpoint / "history.json").read_text()))
    assert 3 <= before < 60
    done = subprocess.run(command(), cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings = Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    tracker = MlflowTracker(settings)
    (run,) = tracker.client.search_runs([tracker.experiment_id(TRAIN)])
    assert run.info.status == "FINISHED"
    logged = tracker.client.get_metric_history(run.info.run_id, "val/dice")
    assert sorted(point.step for point in logged) == list(range(1, 61))
    assert not list(project.glob("checkpoints/train/*/epoch-*"))


def test_a_process_that_is_one_of_several_does_not_train_alone(project):
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 1}}
    for env in ({"TF_CONFIG": json.dumps(cluster)}, {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}):
        done = subprocess.run(
            command(), cwd=project, env=environment(**env), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert re.fullmatch(r"error: .* workers that .* \(2\), got 1; --set distribute.workers=2\n", done.stderr)


def test_the_same_training_does_not_run_twice_at_once(project):
    endless = "train.epochs=100000", "train.patience=100000"
    with subprocess.Popen(command(*endless), cwd=project, env=environment(), stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_some_epochs(project)
            second = subprocess.run(
                command(*endless, "distribute.devices_per_worker=2"),
                cwd=project,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            process.kill()
    assert second.returncode == 2
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("error:")]
    assert "must not run at the same time" in line


def test_a_ray_address_at_which_nobody_answers_is_refused_at_once(project):
    nobody = environment(RAY_ADDRESS="127.0.0.1:1")
    asked = command("distribute.workers=2")
    done = subprocess.run(asked, cwd=project, env=nobody, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "RAY_ADDRESS must name a Ray cluster that answers (Connection refused), got 127.0.0.1:1" in done.stderr


def test_no_more_devices_than_may_be_used(project):
    asked = command("distribute.devices_per_worker=2")
    done = subprocess.run(
        asked, cwd=project, env=environment(MIS_DEVICES="1"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: a training can have at most the 1 ")
    assert "got 2 devices" in done.stderr


def test_a_profile_is_kept_as_an_artifact(project):
    done = subprocess.run(
        [*command("train.epochs=2"), "--profile"], cwd=project, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (trace,) = project.glob("mlruns/artifacts/mis/train/*/artifacts/profile/**/*.xplane.pb")
    assert trace.stat().st_size > 10_000


def start_step(project, restarts):
    """Start a training as the two tasks of a step of SLURM."""
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
    return [
        subprocess.Popen(
            command("distribute.workers=2", "train.epochs=20", "train.patience=20"),
            cwd=project,
            env=environment(**step, SLURM_PROCID=str(rank), SLURM_RESTART_COUNT=str(restarts)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def test_workers_that_slurm_started_end_when_one_is_killed_and_go_on_when_started_again(project):
    chief, other = start_step(project, 0)
    wait_for_some_epochs(project)
    other.kill()
    _, errors = chief.communicate(timeout=60)
    other.communicate()
    assert chief.returncode == 1
    (error,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "worker 0 on 127.0.0.1 has lost the others" in error
    assert "Traceback" not in errors

    again = start_step(project, 1)
    ended = [process.communicate(timeout=240) for process in again]
    assert [process.returncode for process in again] == [0, 0], ended
    assert "best validation Dice" in ended[0][0]
    assert ended[1][0] == ""
    settings = Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    tracker = MlflowTracker(settings)
    (run,) = tracker.client.search_runs([tracker.experiment_id(TRAIN)])
    logged = tracker.client.get_metric_history(run.info.run_id, "val/dice")
    assert [point.step for point in logged] == list(range(1, 21))
