"""Searches with nodes on which nothing works, processes that hang, a disk that is full; trials have known curves."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mis.errors import MisError
from mis.files import DiskFullError
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from tests.curves import Curves
from tests.ray_nodes import TwoNodes
from tests.tune.ray.conftest import LEARNING_RATE, NO_SCHEDULER

pytestmark = pytest.mark.slow

SEARCH = {
    "tune__num_samples": 5,
    "tune__epochs": 4,
    "tune__max_failures": 1,
    "tune__space": LEARNING_RATE,
    "tune__scheduler": NO_SCHEDULER,
    "train__patience": 4,
}


def said(capsys):
    """Return what a search has said, in one line."""
    return " ".join(capsys.readouterr().err.split())


def states(trials):
    return [(trial.number, str(trial.state), len(trial.history)) for trial in trials]


ALL = [(number, "completed", 4) for number in range(5)]


@pytest.mark.parametrize("halts", [False, True], ids=["hangs", "is halted"])
def test_a_trial_whose_process_does_no_step_goes_on_from_its_checkpoint(search, tmp_path, capsys, halts):
    # A process that has not begun yet on a busy machine does no step either.
    patient = SEARCH | {"tune__stall_s": 20.0, "tune__max_failures": 3}
    trials, tracker = search(training=Curves(hangs=tmp_path / "hung", halts=halts), **patient)
    assert states(trials) == ALL
    line = said(capsys)
    assert "goes on from its last epoch: it did no step for" in line
    (trace,) = [path for path in tmp_path.glob("tune/*/trials/*/trace.txt") if path.stat().st_size]
    assert str(trace) in line
    assert "curves.py" in trace.read_text()
    for run in tracker.runs[1:]:
        assert [step for step, _ in run.metrics["val/dice"]] == [1, 2, 3, 4]


def test_a_search_ends_where_no_trial_comes_to_an_epoch_and_goes_on_when_that_is_mended(
    search, nodes, tmp_path, capsys
):
    broken, path = tmp_path / "broken", tmp_path / "tune" / "study"
    broken.write_text(" ".join(node.name for node in nodes))
    training = Curves(fails_on=broken)
    rule = (
        r"must come to its first epoch, got 3 in a row that did not .*: RuntimeError: the GPU has fallen off .*; mend"
    )
    with pytest.raises(MisError, match=rule):
        search(training=training, path=path, **SEARCH)
    assert "is left out: 3 trials in a row failed there before an epoch" in said(capsys)
    store = StudyStore.open(path)
    assert len(store.journal.numbers()) <= 3, "the study is not used up"
    assert store.trials() == []
    broken.write_text("")
    trials, _ = search(training=training, path=path, **SEARCH)
    assert states(trials) == ALL


def test_a_trial_whose_process_dies_at_each_start_fails_alone(search):
    """It says nothing of its node, however often it is tried."""
    trials, _ = search(training=Curves(dies=1), **SEARCH | {"tune__max_failures": 3})
    assert states(trials) == [*ALL[:1], (1, "failed", 0), *ALL[2:]]
    assert trials[1].error == "its process died"


def test_what_is_found_when_the_study_is_left_is_not_taken_for_its_end(search, monkeypatch):
    """Trials that still run are ended with the budget: one that cannot be must not be lost."""

    def leave(self):
        self.budget.give_up(MisError("the checkpoints of trial 000 must be seen"))

    monkeypatch.setattr(StudyMonitor, "leave", leave)
    with pytest.raises(MisError, match="the checkpoints of trial 000 must be seen"):
        search(training=Curves(), **SEARCH)


def test_a_full_disk_ends_a_search_with_one_line_and_the_same_study_goes_on(search, small_disk):
    disk = small_disk("3m")
    path, training = disk / "tune" / "study", Curves(size=20_000)
    hog = disk / "hog"
    with suppress(OSError), hog.open("wb", buffering=0) as file:
        for _ in range(2300):
            file.write(b"x" * 1024)
    with pytest.raises(DiskFullError, match=f"space on the disk of {path}, got none left; make space"):
        search(training=training, path=path, tune__keep=5, **SEARCH)
    before = StudyStore.open(path).trials()
    assert {trial.state for trial in before} <= {"completed"}
    hog.unlink()
    trials, _ = search(training=training, path=path, tune__keep=5, **SEARCH)
    assert states(trials) == ALL
    assert [trial.history for trial in trials[: len(before)]] == [trial.history for trial in before]


# ---- Two nodes ----

ON_TWO_NODES = """
import sys
from pathlib import Path

import ray
from mis.data.records.source import RecordsSource
from mis.errors import MisError
from mis.params.load import load_params
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import allocate
from mis.train.cluster import cluster
from mis.tune.ray.driver import run_study
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from tests.curves import Curves

plain, path, records, values, fails_on, address = sys.argv[1:]
params = load_params(Path(plain), [])
import json
params = params.override(json.loads(values))
with cluster(address) as nodes:
    second = next(node.name for node in nodes if node.name != ray.get_runtime_context().get_node_id())
    if fails_on:
        Path(fails_on).write_text(second)
    tracker = MemoryTracker()
    store = StudyStore.create(Path(path), params)
    training = Curves(fails_on=Path(fails_on) if fails_on else None, failures=3, raises=4)
    with store.locked():
        trials = run_study(
            store,
            allocate(nodes, 1),
            records=RecordsSource(Path(records)),
            tracker=tracker,
            study=tracker.start_run(TUNE, "study"),
            training=training,
        )
    print(json.dumps([[trial.number, str(trial.state), len(trial.history)] for trial in trials]))
"""


def search_on(cluster, path, records, fails_on="", **values):
    """Run a search on a cluster of two nodes, in a process of its own."""
    values = {name.replace("__", "."): value for name, value in (SEARCH | values).items()}
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", ON_TWO_NODES, root / "pipelines" / "plain.yaml", path, records.folder]
    return subprocess.run(
        [*map(str, command), json.dumps(values), str(fails_on), cluster.env["RAY_ADDRESS"]],
        env=cluster.env | {"PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("allocation", ["fixed", "elastic"])
def test_a_node_on_which_trials_fail_is_left_out_and_the_others_do_the_study(records, tmp_path, allocation):
    """The last trial fails by itself, once the node is left out."""
    with TwoNodes(cores=1) as cluster:
        done = search_on(
            cluster,
            tmp_path / "tune" / "study",
            records,
            tmp_path / "broken",
            tune__max_failures=0,
            tune__allocation=allocation,
        )
    assert done.returncode == 0, done.stderr
    expected = [list(trial) for trial in (*ALL[:4], (4, "failed", 0))]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    assert done.stderr.count("is left out: 3 trials in a row failed there before an epoch") == 1


@pytest.mark.usefixtures("small_disk")  # it needs the same rights
def test_a_node_that_does_not_see_the_study_is_refused_before_a_trial_begins(records, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    with TwoNodes(cores=1, hidden=folder) as cluster:
        done = search_on(cluster, folder / "tune" / "study", records)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert f"every node must see {folder}/tune/study, got one that does not" in line
    assert "keep the project in a folder that all nodes share" in line
    assert not list(folder.glob("tune/study/.proof*"))
    assert StudyStore.open(folder / "tune" / "study").journal.numbers() == []


@pytest.mark.parametrize(("scheduler", "epochs"), [("none", 1), ("asha", 4), ("pbt", 4)])
def test_a_last_epoch_that_nobody_has_reported_counts(search, tmp_path, scheduler, epochs):
    """As on a node that was cut off: its checkpoint is there, and there is nothing left to train."""
    rules = {"name": scheduler, "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 2}
    trials, _ = search(
        training=Curves(epoch_s=0.0, unreported=tmp_path / "died"),
        tune__num_samples=4,
        tune__epochs=epochs,
        tune__space=LEARNING_RATE,
        tune__sampler={"name": "random", "seed": 0},
        tune__scheduler=rules,
    )
    assert (tmp_path / "died").exists()
    assert "completed" in [str(trial.state) for trial in trials]
    for trial, known in zip(trials, search.store.journal.study.get_trials(), strict=True):
        assert sorted(known.intermediate_values) == list(range(1, len(trial.history) + 1))
        assert str(trial.state) != "failed", trial.error
