"""`python -m mis.tune` in a process of its own, and the store that it writes to."""

import os

from mis.settings import Settings
from mis.track.mlflow import MlflowTracker

OURS = ("MIS_", "MLFLOW_", "RAY_")

LEARNING_RATE = "tune.space={train.learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}}"
"""A space of one parameter, whose trials share a graph."""


def start(warm, project, *arguments, sets=(), **env):
    """Start a search warm, with other values for some parameters and in the environment."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    sets = [part for value in sets for part in ("--set", value)]
    return warm.start(*arguments, *sets, module="mis.tune", cwd=project, env=own | env)


def tracker_of(project):
    """Return the project's own store."""
    return MlflowTracker(
        Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    )
