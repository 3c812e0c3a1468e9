"""A project that all machines see, and a cluster under SLURM."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mis.settings import Settings
from mis.track.base import TUNE
from mis.track.mlflow import MlflowTracker
from mis.tune.study.store import StudyStore
from tests.cluster.machines import local_disk, made_machines
from tests.cluster.slurm import made_slurm
from tests.conftest import PARAMS, ROOT

OURS = ("MIS_", "MLFLOW_", "DVC_", "RAY_", "SLURM_")

TINY = {
    "model.depth": 1,
    "model.base_filters": 4,
    "train.batch_size": 2,
    "train.patience": 40,
    "tune.num_samples": 4,
    "tune.epochs": 4,
    "tune.space": {"train.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}},
    "tune.scheduler.name": "none",
    "tune.max_failures": 5,
}
"""Parameters of a search whose epochs take a fraction of a second."""


@pytest.fixture
def machines(tmp_path):
    """Two machines."""
    with made_machines(2, tmp_path / "machines") as machines:
        yield machines


@pytest.fixture
def slurm(machines, tmp_path):
    """Two nodes under SLURM."""
    with made_slurm(machines, tmp_path / "slurm") as slurm:
        yield slurm


class Project:
    """A project on the file system that all machines share.

    Attributes:
        folder: Its folder.
        env: The environment of a user's shell in it, with its `.venv` activated.
    """

    def __init__(self, folder, records):
        self.folder = folder
        folder.mkdir()
        (folder / "data").mkdir()
        (folder / "data" / "records").symlink_to(records)
        (folder / "dvc.yaml").write_text("stages: {}\n")
        shutil.copy(PARAMS, folder / "params.yaml")
        # As `source .venv/bin/activate` in the project; the library itself is the one that is tested.
        (folder / ".venv").symlink_to(Path(sys.prefix))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        self.env = kept | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", "MIS_LEASES": f"{folder}/leases"}
        self.env["SLURM_TMPDIR"] = str(local_disk())  # jobs of several clusters have the same numbers

    def run(self, *command, env=None, check=True, timeout=300):
        """Run a command in the project."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=self.env | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def studies(self):
        """Return the folders of its studies."""
        return sorted((self.folder / "checkpoints" / "tune").glob("*"))


@pytest.fixture
def project(tmp_path, records):
    """A project with records."""
    return Project(tmp_path / "project", records.folder)


def sets(**more):
    """Return the options of a small search."""
    values = TINY | {name.replace("__", "."): value for name, value in more.items()}
    return [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def hosts(store):
    """Return the names of the machines on which trials were started last."""
    return {json.loads(trial.started.read_text())["host"] for trial in store.folder.trials}


def check_whole(project, name, epochs):
    """Check that each trial of a study is there once, with each epoch once, in MLflow too."""
    store = StudyStore.open(project.folder / "checkpoints" / "tune" / name)
    trials = store.trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert not store.interrupted()
    assert all(len(trial.history) == epochs for trial in trials if trial.state == "completed")
    assert {str(trial.state) for trial in trials} <= {"completed", "stopped"}
    settings = Settings(project.folder, project.folder, f"sqlite:///{project.folder}/mlruns/mlflow.db")
    client = MlflowTracker(settings).client
    experiment = client.get_experiment_by_name(TUNE)
    runs = client.search_runs([experiment.experiment_id], f"tags.`mis.study` = '{name}'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    of_trials = {run.data.tags["mis.trial"]: run for run in runs if "mis.trial" in run.data.tags}
    assert len(runs) == len(trials) + 1
    for trial in trials:
        points = client.get_metric_history(of_trials[trial.name].info.run_id, "val/dice")
        assert sorted(point.step for point in points) == list(range(1, len(trial.history) + 1))
    return store


def epochs_of(folder):
    """Return how many epochs a training has written to its folder."""
    return max((int(path.name.partition("-")[2]) for path in folder.glob("epoch-*")), default=0)


def hosts_with_epochs(study, epochs):
    """Return the names of the machines on which a trial of a study runs that has written so many epochs."""
    started = [path for path in study.glob("trials/*/started.json") if epochs_of(path.parent) >= epochs]
    return {json.loads(path.read_text())["host"] for path in started}
