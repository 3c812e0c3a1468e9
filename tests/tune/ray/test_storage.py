"""Searches of which no node sees another's files decide as those whose nodes share a folder."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.s3 import bucket
from tests.searches import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

DRIVER = """
import json
import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from mis.data.records.source import RecordsSource
from mis.params.load import load_params
from mis.storage.remote import RemoteFolder
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import allocate
from mis.train.cluster import cluster
from mis.tune.ray.driver import run_study
from mis.tune.study.kept import kept_on_storage
from mis.tune.study.store import StudyStore
from tests.curves import Curves

plain, records, url, values = sys.argv[1:]
devices = 2 if "elastic" in values else 1  # one by one a population decides alike each time
params, path, tracker = load_params(Path(plain), []).override(json.loads(values)), Path("study"), MemoryTracker()
store = StudyStore.create(path.resolve(), params)
store = StudyStore(store.path, params, RemoteFolder(url, 60.0) if url else None)
with store.locked(), kept_on_storage(store, print) as store, cluster(None, most_cores=devices) as nodes:
    trials = run_study(
        store,
        allocate(nodes, 1, limit=devices),
        records=RecordsSource(Path(records)),
        tracker=tracker,
        study=tracker.start_run(TUNE, "study"),
        limit=devices,
        training=Curves(epoch_s=0.1),
    )
print(json.dumps([
    [trial.number, str(trial.state), [epoch["val/dice"] for epoch in trial.history], trial.best_model.exists()]
    for trial in trials
]))
"""

SPACE = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}}


@pytest.fixture
def server():
    with bucket() as found:
        yield found


@pytest.fixture
def search(records, tmp_path):
    """Start a search in a process of its own, and return it."""

    def start(url, **values):
        folder = tmp_path / ("kept" if url else "plain")
        folder.mkdir()
        values = {"tune.space": SPACE, "tune.keep": 99} | {
            name.replace("__", "."): value for name, value in values.items()
        }
        command = [sys.executable, "-c", DRIVER.format(root=str(ROOT))]
        command += [str(ROOT / "pipelines" / "plain.yaml"), str(records.folder), url, json.dumps(values)]
        env = {**os.environ, "TMPDIR": tempfile.mkdtemp(prefix="m"), "MIS_LEASES": str(folder / "leases")}
        env["PYTHONPATH"] = str(ROOT)  # of the trials' processes too
        return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def result(process):
    """Return what a search prints last."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), out


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(
            {
                "tune__scheduler": {"name": "pbt", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 2},
                "tune__sampler": {"name": "random", "seed": 0},
                "tune__num_samples": 4,
                "tune__epochs": 6,
            },
            id="a population, whose trials take over weights",
        ),
        pytest.param(
            {
                "tune__allocation": "elastic",
                "tune__scheduler": {"name": "none", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 1},
                "tune__num_samples": 3,
                "tune__epochs": 6,
                "train__batch_size": 2,
            },
            id="elastic, whose trials start again on other devices",
        ),
    ],
)
def test_a_search_without_a_common_folder_ends_as_one_with_it(search, server, tmp_path, values):
    plain, _ = result(search("", **values))
    if "tune__allocation" not in values:
        assert list(tmp_path.glob("plain/study/trials/*/cloned.json")), "some trial has taken over weights"
    running = search("s3://mis/study", **values)
    there = server.folder("study")
    wait_until(running, lambda: any("epoch-0002/history.json" in name for name in there.list()))
    server.down()
    time.sleep(6)
    server.up()
    kept, out = result(running)
    assert "does not answer" in out
    assert "answers again" in out
    assert [trial[:3] for trial in kept] == [trial[:3] for trial in plain], out
    assert all(there for *_, there in kept), "the models of those that are kept have been fetched"
    if "tune__allocation" not in values:
        assert any(name.endswith("/cloned.json") for name in there.list())
