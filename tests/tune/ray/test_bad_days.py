"""Searches with nodes on which nothing works, processes that hang, a disk that is full; trials have known curves."""

from contextlib import suppress

import pytest

from mis.errors import MisError
from mis.files import DiskFullError
from mis.tune.study.store import StudyStore
from tests.curves import Curves
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
    trials, tracker = search(training=Curves(hangs=tmp_path / "hung", halts=halts), tune__stall_s=3.0, **SEARCH)
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
    rule = r"must come to its first epoch, got 3 starts in a row .*: RuntimeError: the GPU has fallen off the bus; mend"
    with pytest.raises(MisError, match=rule):
        search(training=training, path=path, **SEARCH)
    assert "is left out: 3 starts in a row failed there before an epoch" in said(capsys)
    store = StudyStore.open(path)
    assert len(store.journal.numbers()) <= 3, "the study is not used up"
    assert store.trials() == []
    broken.write_text("")
    trials, _ = search(training=training, path=path, **SEARCH)
    assert states(trials) == ALL


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
