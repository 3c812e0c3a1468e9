"""One training with its run in a real MLflow store, killed and begun again."""

import json
import re
import signal
import subprocess
import sys

import pytest

from mis.errors import MisError
from mis.settings import Settings
from mis.track.base import TRAIN
from mis.track.mlflow import MlflowTracker
from mis.train.session import train
from tests.trainings import EPOCHS, arguments, environment, wait_for_some_epochs

pytestmark = pytest.mark.slow


def start(warm, project, *flags, env=None, **overrides):
    """Start `python -m mis.train`."""
    command = [*arguments(**overrides), *flags]
    return warm.start(*command, module="mis.train", cwd=project, env=environment(**(env or {})))


def stop_after_some_epochs(process, project):
    """Stop a training, as a signal that cannot be caught does, once it has written a few checkpoints."""
    wait_for_some_epochs(process, project)
    process.send_signal(signal.SIGSTOP)


def only_run(project):
    """Return the run of the project's only training, and the steps at which it has logged the validation Dice."""
    settings = Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    tracker = MlflowTracker(settings)
    (run,) = tracker.client.search_runs([tracker.experiment_id(TRAIN)])
    return run, [point.step for point in tracker.client.get_metric_history(run.info.run_id, "val/dice")]


def test_a_training_runs_once_at_a_time_and_goes_on_in_its_run_after_a_kill(warm, project):
    first = start(warm, project)
    stop_after_some_epochs(first, project)
    *_, checkpoint = sorted(project.glob("checkpoints/train/*/epoch-*"))
    before = len(json.loads((checkpoint / "history.json").read_text()))
    assert 2 <= before < EPOCHS

    # The first one is stopped and holds its lock: another number of devices is the same training.
    second = start(warm, project, distribute__devices_per_worker=2)
    _, errors = second.communicate()
    assert second.returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "must not run at the same time" in line

    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    third = start(warm, project, "--profile")
    _, errors = third.communicate()
    assert third.returncode == 0, errors
    run, steps = only_run(project)
    assert run.info.status == "FINISHED"
    assert sorted(steps) == list(range(1, EPOCHS + 1))
    assert not list(project.glob("checkpoints/train/*/epoch-*"))
    (trace,) = project.glob("mlruns/artifacts/mis/train/*/artifacts/profile/**/*.xplane.pb")
    assert trace.stat().st_size > 10_000


def test_a_training_that_is_told_to_end_says_so_in_mlflow_and_goes_on(warm, project):
    process = start(warm, project)
    wait_for_some_epochs(process, project)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "Traceback" not in errors
    run, _ = only_run(project)
    assert run.info.status == "KILLED"
    again = start(warm, project)
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    run, steps = only_run(project)
    assert run.info.status == "FINISHED"
    assert sorted(steps) == list(range(1, EPOCHS + 1))


# ---- What is refused before anything starts ----


def train_here(project, params, monkeypatch, devices=None, **env):
    """Train in this process, with these variables in the environment."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    uri = f"sqlite:///{project}/mlruns/mlflow.db"
    train(params, Settings(root=project, workspace=project, tracking_uri=uri, devices=devices))


@pytest.mark.parametrize(
    "env",
    [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 1}}
            )
        },
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
    ],
)
def test_a_process_that_is_one_of_several_does_not_train_alone(project, tiny_params, monkeypatch, env):
    with pytest.raises(MisError) as error:
        train_here(project, tiny_params, monkeypatch, **env)
    assert re.fullmatch(
        r"distribute.workers .* workers that .* \(2\), got 1; --set distribute.workers=2", str(error.value)
    )
    assert not (project / "mlruns").exists()


def test_no_more_devices_than_may_be_used(project, tiny_params, monkeypatch):
    with pytest.raises(MisError, match=r"a training can have at most the 1 .* got 2 devices"):
        train_here(project, tiny_params.override({"distribute.devices_per_worker": 2}), monkeypatch, devices=1)
    assert not (project / "mlruns").exists()


def test_a_ray_address_at_which_nobody_answers_is_refused_at_once(project):
    command = [sys.executable, "-m", "mis.train", *arguments(distribute__workers=2)]
    nobody = environment(RAY_ADDRESS="127.0.0.1:1")
    done = subprocess.run(command, cwd=project, env=nobody, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "RAY_ADDRESS must name a Ray cluster that answers (Connection refused), got 127.0.0.1:1" in done.stderr


# ---- Several processes that SLURM has started ----


def start_step(warm, project, restarts):
    """Start a training as the two tasks of a step of SLURM."""
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
    step |= {"SLURM_RESTART_COUNT": str(restarts)}
    return [start(warm, project, env=step | {"SLURM_PROCID": str(rank)}, distribute__workers=2) for rank in range(2)]


def test_workers_that_slurm_started_end_when_one_is_killed_and_go_on_when_started_again(warm, project):
    chief, other = start_step(warm, project, 0)
    wait_for_some_epochs(chief, project)
    other.kill()
    _, errors = chief.communicate(timeout=60)
    other.communicate()
    assert chief.returncode == 1
    (error,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "worker 0 on 127.0.0.1 has lost the others" in error
    assert "Traceback" not in errors

    again = start_step(warm, project, 1)
    ended = [process.communicate() for process in again]
    assert [process.returncode for process in again] == [0, 0], ended
    assert "best validation Dice" in ended[0][0]
    assert ended[1][0] == ""
    _, steps = only_run(project)
    assert steps == list(range(1, EPOCHS + 1))
