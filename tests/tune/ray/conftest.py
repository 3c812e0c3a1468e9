"""A search with real trainings on the Ray cluster that all tests share."""

import pytest

from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import allocate
from mis.tune.ray.driver import run_study
from mis.tune.study.store import StudyStore

NO_SCHEDULER = {"name": "none", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 1}
LEARNING_RATE = {"train.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}


@pytest.fixture
def search(nodes, records, tiny_params, tmp_path):
    """Run a study with some parameters replaced; return its trials and what was tracked."""

    def run(tracker=None, contents=None, folder=records.folder, study=None, **values):
        params = tiny_params.override({name.replace("__", "."): value for name, value in values.items()})
        tracker = tracker or MemoryTracker()
        study = study or tracker.start_run(TUNE, "study")
        share = allocate(nodes, params.tune.devices_per_trial)
        store = StudyStore.create(tmp_path / "tune" / f"study-{study.id}", params)
        with store.locked():
            trials = run_study(store, share, records=folder, contents=contents, tracker=tracker, study=study)
        run.store = store
        return trials, tracker

    return run
