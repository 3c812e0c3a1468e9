"""`python -m mis.tune` as a user types it: several at once, into one store; the paper's grid; a memory that is full."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from mis.errors import MisError
from mis.ports import free_port
from mis.settings import Settings
from mis.track.base import TUNE
from mis.track.mlflow import MlflowTracker
from mis.track.server import server, wait_until_ready
from mis.train.allocate import Node
from mis.train.cluster import OBJECT_STORE_BYTES
from mis.tune.resources import fits_in_memory, shared_room
from mis.tune.session import check_name
from tests.conftest import ROOT
from tests.searches import LEARNING_RATE, start, tracker_of

pytestmark = pytest.mark.slow

TWO = ("model.depth=1", "model.base_filters=4", "tune.num_samples=2", "tune.epochs=1", "tune.scheduler.name=none")
SMALL = (*TWO, LEARNING_RATE)


def ended(process, returncode=0):
    """Wait for a search, and return what it has printed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == returncode, err
    return out, err


def runs_of(tracker):
    return tracker.client.search_runs([tracker.experiment_id(TUNE)])


def test_searches_at_the_same_time_share_a_store(warm_searches, project):
    """One writes to its file, the other through a server in front of it, as from another host."""
    tracker = tracker_of(project)
    port, log = free_port(), project / "server.log"
    url = f"http://127.0.0.1:{port}"
    with server(tracker.uri, port, log) as process:
        wait_until_ready(process, url, log)
        searches = [
            start(warm_searches, project, "--name", "here", sets=SMALL),
            start(warm_searches, project, sets=SMALL, MLFLOW_TRACKING_URI=url),
        ]
        told = [ended(search) for search in searches]
    assert all("best: trial" in out for out, _ in told)
    assert "mlruns/mlflow.db" in told[0][0]
    assert "make ui" in told[0][0]
    assert url in told[1][0]
    names = [re.search(r"^study (\S+);", err, re.MULTILINE)[1] for _, err in told]
    assert names[0] == "here"
    assert len(set(names)) == 2
    runs = runs_of(tracker)
    assert len(runs) == 2 * (1 + 2)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for name in names:
        own = [run for run in runs if run.data.tags["mis.study"] == name]
        (parent,) = [run for run in own if "mis.trial" not in run.data.tags]
        children = [run for run in own if "mis.trial" in run.data.tags]
        assert sorted(run.data.tags["mis.trial"] for run in children) == ["000", "001"]
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
        assert parent.data.metrics["best/dice"] == max(run.data.metrics["best/dice"] for run in children)
        assert {"trials_per_hour", "device_hours", "device_utilisation"} <= parent.data.metrics.keys()
        assert 0 < parent.data.metrics["device_utilisation"] <= 1
        assert parent.data.metrics["data_in_memory_bytes"] > 0
        files = {file.path for file in tracker.client.list_artifacts(parent.info.run_id, "figures")}
        assert {"figures/history.png", "figures/study.html"} <= files
        for run in children:
            assert [file.path for file in tracker.client.list_artifacts(run.info.run_id, "model")] == [
                "model/best.keras"
            ]

    # What has been measured tells of the next one, and its best values may be where that begins.
    out, _ = ended(
        start(warm_searches, project, "--dry-run", sets=[*SMALL, f"tune.start.study={names[0]}", "tune.start.best=1"])
    )
    assert "trials: 2, of which 1 from starting points, sampler tpe, for validation Dice" in out
    assert re.search(r"time: about .* \(from 4 earlier trials: ", out)
    assert len(runs_of(tracker)) == len(runs)
    assert not list(project.glob("checkpoints/tune/*/trials/*/epoch-*"))

    # One that has ended goes on with another budget, in the same runs, and a name is taken once.
    _, err = ended(start(warm_searches, project, "--name", "here", sets=SMALL), returncode=2)
    assert err == "error: a new study must have a new name, got here; go on with it: --resume here\n"
    out, err = ended(start(warm_searches, project, "--resume", "here", sets=["tune.num_samples=3"]))
    assert "it goes on: 2 of 3 trials have ended, 2 were begun" in err
    assert re.findall(r"^ *(\d{3}) +completed", out, re.MULTILINE) == ["000", "001", "002"]
    more = [run for run in runs_of(tracker) if run.data.tags["mis.study"] == "here"]
    assert len(more) == 1 + 3
    assert {run.info.status for run in more} == {"FINISHED"}
    (parent,) = [run for run in more if "mis.trial" not in run.data.tags]
    assert parent.data.metrics["trials"] == 3


def test_a_name_is_taken_also_where_only_mlflow_knows_it(tmp_path):
    """Otherwise the runs of both would be one study's."""
    settings = Settings(root=tmp_path, workspace=tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    check_name("mine", settings)
    MlflowTracker(settings).start_run(TUNE, "study-mine", tags={"mis.study": "mine"})
    with pytest.raises(MisError, match=r"must have a new name, got mine, of which MLflow has runs; choose another"):
        check_name("mine", settings)
    with pytest.raises(MisError, match=r"must begin with a letter or digit, .*, got '\.\./x'"):
        check_name("../x", settings)
    check_name("mine", replace(settings, offline=True))
    check_name("mine", replace(settings, offline=True, tracking_uri="http://127.0.0.1:9"))


@pytest.mark.parametrize(("free_gib", "disk_gib", "fits"), [(64, 64, True), (8, 64, False), (64, 1, False)])
def test_what_fits_the_share_of_memory_has_room(monkeypatch, free_gib, disk_gib, fits):
    """4 GiB of records, of which a node may have a third of its memory, in what a local cluster is given."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free_gib * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk_gib * 2**30))
    size, share = 4 * 2**30, 0.3
    shared = OBJECT_STORE_BYTES + shared_room(size, share)
    node = Node(cpus=8, gpus=1, memory_bytes=free_gib * 2**30, shared_bytes=shared)
    assert fits_in_memory(size, [node], share) == fits
    assert shared < 6 * 2**30


def test_a_dry_run_prints_the_space_and_runs_nothing(warm_searches, project):
    out, _ = ended(start(warm_searches, project, "--dry-run", sets=TWO, MIS_DEVICES="2"))
    lines = out.splitlines()
    assert lines[0] == "space:"
    assert "  train.learning_rate  from 0.001 to 0.02, logarithmic" in lines
    assert "  model.norm           batch or group" in lines
    assert "trials: 2, sampler tpe, for validation Dice" in lines
    assert any(line.startswith("devices: 2 trials at once on 1 node, each on 1 CPU core") for line in lines)
    assert any(line.startswith("data: 6 cases to train on, 1 for validation, ") for line in lines)
    assert "time: not known: there are no earlier trials on these records with these parameters" in lines
    assert lines[-1] == "nothing was run"
    assert tracker_of(project).experiment_id(TUNE) is None


def test_a_dry_run_makes_no_records(warm_searches, project, tiny_root):
    (project / "data" / "raw").mkdir()
    (project / "data" / "raw" / "phantom").symlink_to(tiny_root)
    out, _ = ended(start(warm_searches, project, "--dry-run", sets=["data.target=whole_tumor"]))
    assert "data: the records for these parameters are not there: they are made first" in out
    assert sorted(path.name for path in (project / "data").iterdir()) == ["raw", "records"]


def test_a_study_that_is_not_there_cannot_be_started_from(warm_searches, project):
    _, err = ended(start(warm_searches, project, sets=["tune.start.study=none-such"]), returncode=2)
    assert err == "error: tune.start.study must name a study in MLflow with ended trials, got none-such\n"


def test_the_papers_grid_runs_to_its_end(warm_searches, project, tiny_root):
    """All 32 trials, on the phantom, with a network so small that it takes a minute; it makes its own records."""
    (project / "data" / "raw").mkdir()
    (project / "data" / "raw" / "phantom").symlink_to(tiny_root)
    small = ["model.depth=1", "model.base_filters=4", "tune.epochs=1"]
    out, err = ended(start(warm_searches, project, "--params", str(ROOT / "pipelines" / "paper.yaml"), sets=small))
    assert "has records for other parameters: those for these are made in" in err
    assert "goes on" not in err
    assert len(re.findall(r"^ *\d{3} +completed", out, re.MULTILINE)) == 32
    trials = [run for run in runs_of(tracker_of(project)) if "mis.trial" in run.data.tags]
    names = ("train.learning_rate", "model.norm", "train.beta_2", "train.amsgrad")
    assert len({tuple(run.data.params[name] for name in names) for run in trials}) == 32
    assert {run.data.params["data.target"] for run in trials} == {"whole_tumor"}


def test_a_trial_that_has_no_memory_is_tried_with_half_the_batch(warm_searches, project):
    """Ray ends what runs, because it may have so little."""
    full = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    sets = [*SMALL, "tune.num_samples=1", "train.batch_size=4", "tune.max_failures=1"]
    _, err = ended(start(warm_searches, project, sets=sets, **full), returncode=2)
    assert "trial 000 goes on with half the batch: " in err
    assert "low on memory" in err.splitlines()[-1]
    (run,) = [run for run in runs_of(tracker_of(project)) if "mis.trial" in run.data.tags]
    assert run.info.status == "FAILED"
    assert run.data.params["train.batch_size"] == "4"
    assert run.data.tags["mis.changed.train.batch_size"] == "2"
    assert "low on memory" in run.data.tags["mis.error"]
