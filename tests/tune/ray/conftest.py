"""A search with real trainings on the Ray cluster that all tests share."""

import pytest

from mis.data.records.source import RecordsSource
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import allocate
from mis.tune.ray.driver import run_study
from mis.tune.ray.training import train_network
from mis.tune.study.store import StudyStore

NO_SCHEDULER = {"name": "none", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 1}
LEARNING_RATE = {"train.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}


def searching(nodes, records, tiny_params, folder):
    """Return a function that runs a study with some parameters replaced, and returns its trials and what was tracked.

    It uses one device, unless it is told to use more: each process of a trial takes seconds to begin.
    """

    def run(
        tracker=None,
        contents=None,
        records=records.folder,
        study=None,
        devices=1,
        starts=(),
        training=train_network,
        path=None,
        **values,
    ):
        replaced = {name.replace("__", "."): value for name, value in values.items()}
        params = tiny_params.override({"model.norm": "none"} | replaced)
        tracker = tracker or MemoryTracker()
        study = study or tracker.start_run(TUNE, "study")
        share = allocate(nodes, params.tune.devices_per_trial, limit=devices)
        path = path or folder / "tune" / f"study-{study.id}"
        store = run.store = StudyStore.open(path) if path.exists() else StudyStore.create(path, params, starts=starts)
        with store.locked():
            trials = run_study(
                store,
                share,
                records=RecordsSource(records),
                contents=contents,
                tracker=tracker,
                study=study,
                training=training,
            )
        return trials, tracker

    return run


@pytest.fixture
def search(nodes, records, tiny_params, tmp_path):
    """Run a study: see `searching`."""
    return searching(nodes, records, tiny_params, tmp_path)


@pytest.fixture(scope="module")
def searched(nodes, records, tiny_params, tmp_path_factory):
    """The trials of a study of four, of which the models of two are kept, and what was tracked."""
    search = searching(nodes, records, tiny_params, tmp_path_factory.mktemp("searched"))
    return search(
        tune__num_samples=4, tune__epochs=2, tune__keep=2, tune__space=LEARNING_RATE, tune__scheduler=NO_SCHEDULER
    )
