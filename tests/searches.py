"""`python -m mis.tune` in a process of its own, and the store that it writes to."""

import os
import time
from contextlib import suppress

import psutil

from mis.settings import Settings
from mis.track.base import TUNE
from mis.track.mlflow import MlflowTracker

OURS = ("MIS_", "MLFLOW_", "RAY_")

LEARNING_RATE = "tune.space={train.learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}}"
"""A space of one parameter, whose trials share a graph."""


def start(warm, project, *arguments, sets=(), **env):
    """Start a search warm, with other values for some parameters and in the environment.

    It has one device, unless MIS_DEVICES says otherwise: each process of a trial takes seconds to begin.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    # Tests that run beside this one have devices of their own: each project is another machine.
    own |= {"MIS_LEASES": f"{project}/leases", "MIS_DEVICES": "1"}
    sets = [part for value in sets for part in ("--set", value)]
    return warm.start(*arguments, *sets, module="mis.tune", cwd=project, env=own | env)


def tracker_of(project):
    """Return the project's own store."""
    return MlflowTracker(
        Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    )


def kill(process):
    """Kill -9 the driver, and what it has left behind, as the end of a job does."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def wait_until(process, condition):
    """Wait for what a search does; it must not end before."""
    deadline = time.monotonic() + 120
    while not condition():
        ended = process.poll() is not None
        assert not ended, f"the search has ended before the kill, exit {process.returncode}: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.02)


def recorded(project):
    """Return the runs of the trials of the one study that there is, in their order, and its own; all have ended."""
    tracker = tracker_of(project)
    runs = tracker.client.search_runs([tracker.experiment_id(TUNE)])
    (parent,) = [run for run in runs if "mis.trial" not in run.data.tags]
    children = [run for run in runs if "mis.trial" in run.data.tags]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    return sorted(children, key=lambda run: run.data.tags["mis.trial"]), parent
