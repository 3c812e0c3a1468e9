"""A search on Ray that is killed and resumed decides what the same search decides undisturbed, without Ray.

It has one device: the trials come one after another, so that nothing depends on which of them is faster.
"""

import json
import os

import pytest

from tests.conftest import PARAMS, ROOT
from tests.curves import Curves
from tests.searches import OURS, kill, wait_until
from tests.tune.study.test_decisions import EPOCHS, SPACE, TRIALS, decisions
from tests.tune.study.test_decisions import search as search_without_ray

pytestmark = pytest.mark.slow

SEARCH = {
    "train.patience": EPOCHS,
    "tune.num_samples": TRIALS,
    "tune.epochs": EPOCHS,
    "tune.space": SPACE,
    "tune.sampler": {"name": "tpe", "seed": 1},
    "tune.scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 2},
}

KILLED_IN = (4, 11)
"""The search is killed when one of the trials from this number on has had an epoch; the second time, TPE suggests."""

DRIVER = """
import json
import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from mis.data.records.source import RecordsSource
from mis.params.load import load_params
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import allocate
from mis.train.cluster import cluster
from mis.tune.ray.driver import run_study
from mis.tune.study.store import StudyStore
from tests.curves import Curves

plain, records, hangs, hangs_from, values = sys.argv[1:]
params, path, tracker = load_params(Path(plain), []).override(json.loads(values)), Path("study"), MemoryTracker()
store = StudyStore.open(path.resolve()) if path.exists() else StudyStore.create(path.resolve(), params)
with store.locked(), cluster(None) as nodes:
    run_study(
        store,
        allocate(nodes, 1, limit=1),
        records=RecordsSource(Path(records)),
        tracker=tracker,
        study=tracker.start_run(TUNE, "study"),
        training=Curves(epoch_s=0.0, hangs=Path(hangs), hangs_from=int(hangs_from)),
    )
"""


def test_a_search_with_asha_and_tpe_that_is_killed_on_ray_decides_as_the_undisturbed_one(
    warm_searches, search, records, params, tmp_path
):
    undisturbed = search_without_ray(tmp_path / "undisturbed" / "study", params.override(SEARCH), devices=1)
    expected = decisions(undisturbed)
    assert {state for _, _, state, _ in expected} == {"completed", "stopped"}
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env |= {"PYTHONPATH": str(ROOT)}  # of the trials' processes too
    for number in KILLED_IN:
        hung = tmp_path / f"hung-{number}"
        arguments = (PARAMS, records.folder, hung, number, json.dumps(SEARCH))
        process = warm_searches.start(*arguments, source=DRIVER.format(root=str(ROOT)), cwd=tmp_path, env=env)
        wait_until(process, hung.exists)  # the trial does nothing from here on
        kill(process)
        ended = len(list(tmp_path.glob("study/trials/*/outcome.json")))
        assert number <= ended < TRIALS
    values = {name.replace(".", "__"): value for name, value in SEARCH.items()}
    search(training=Curves(epoch_s=0.0), path=tmp_path / "study", **values)
    assert decisions(search.store) == expected
    known = [store.journal.study.get_trials() for store in (undisturbed, search.store)]
    for one, other in zip(*known, strict=True):
        assert (one.state, one.value, one.intermediate_values) == (other.state, other.value, other.intermediate_values)
        assert (one.params, one.system_attrs, one.user_attrs) == (other.params, other.system_attrs, other.user_attrs)
