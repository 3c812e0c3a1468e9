"""`python -m mis.tune` in a process of its own, and the store that it writes to."""

import os
import subprocess
import sys

from mis.settings import Settings
from mis.track.mlflow import MlflowTracker

OURS = ("MIS_", "MLFLOW_", "RAY_")


def start(project, *arguments, sets=(), **env):
    """Start a search, with other values for some parameters and in the environment."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return subprocess.Popen(
        [sys.executable, "-m", "mis.tune", *arguments, *(part for value in sets for part in ("--set", value))],
        cwd=project,
        env=own | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def tracker_of(project):
    """Return the project's own store."""
    return MlflowTracker(
        Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    )
