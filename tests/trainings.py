"""`python -m mis.train` in a process of its own."""

import os
import time

EPOCHS = 12
SMALL = {"model.depth": 1, "model.base_filters": 4, "model.norm": "none"}
SMALL |= {"train.epochs": EPOCHS, "train.patience": EPOCHS}


def arguments(**overrides):
    values = SMALL | {name.replace("__", "."): value for name, value in overrides.items()}
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def environment(**values):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIS_", "MLFLOW_", "DVC_"))}
    return kept | values


def wait_for_some_epochs(process, project):
    """Wait until a training has written a few checkpoints."""
    deadline = time.monotonic() + 120
    while not list(project.glob("checkpoints/train/*/epoch-000[2-9]")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no second epoch"
        time.sleep(0.01)
