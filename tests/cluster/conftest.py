"""A project that all machines see, and a cluster under SLURM."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.machines import made_machines
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
