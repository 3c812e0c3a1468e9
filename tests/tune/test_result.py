"""What is said of a study at its end."""

import errno
from contextlib import nullcontext
from dataclasses import replace

import pytest

from mis.files import DiskFullError
from mis.settings import Settings, load_settings
from mis.track import recording
from mis.track.base import TUNE, NoRun, tracked
from mis.track.memory import MemoryTracker
from mis.track.recording import open_tracker
from mis.train.allocate import Share
from mis.tune import session
from mis.tune.__main__ import show
from mis.tune.resources import Resources
from mis.tune.result import StudyResult
from mis.tune.study import messages
from mis.tune.study.store import StudyStore
from mis.tune.trial import TrialState

EPOCH = {"val/dice": 0.5, "train/loss": 0.5, "time/epoch_s": 2.0, "time/total_s": 1234.5678, "model/parameters": 90720}


@pytest.fixture
def store(params, tmp_path):
    """A study with a trial that is complete and two that have failed."""
    store = StudyStore.create(tmp_path / "study", params.override({"tune.num_samples": 3}))
    for state in (TrialState.COMPLETED, TrialState.FAILED, TrialState.FAILED):
        history = [EPOCH] if state is TrialState.COMPLETED else []
        store.end(replace(store.next_trial(), state=state, elapsed_s=1234.5678).with_history(history))
    return store


def test_whole_numbers_are_whole_in_the_table(store, tmp_path, capsys):
    settings = Settings(root=tmp_path, workspace=tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    show(StudyResult(store.name, store.trials(), 9.0, store, 1, NoRun()), settings)
    head, first, *_ = capsys.readouterr().out.splitlines()
    shown = dict(zip(head.split(), first.split(), strict=False))
    assert (shown["trial"], shown["parameters"], shown["seconds"], shown["elapsed_s"]) == ("000", "90720", "2", "1235")
    assert shown["val/dice"] == "0.5"


def _away(_):
    raise OSError("Connection refused")


def test_a_study_of_which_nothing_was_sent_says_where_it_waits_and_how_it_is_sent(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recording, "SHORT_PATIENCE_S", 0.1)
    monkeypatch.setattr(recording, "connect", _away)
    settings = load_settings({"MIS_ROOT": str(tmp_path), "MLFLOW_TRACKING_URI": "http://away:5000", "MIS_OFFLINE": "1"})
    with open_tracker(settings) as tracker, tracked(tracker.open_run(TUNE, "study")) as run:
        pass
    show(StudyResult(store.name, store.trials(), 9.0, store, 1, run), settings)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == (
        f"study study, its curves and its model: waiting in {settings.outboxes}; `python -m mis.track sync` sends them"
    )


def test_a_study_says_how_many_trials_have_failed_and_how_they_are_tried_again(
    store, records, tmp_path, monkeypatch, capsys
):
    settings = Settings(root=tmp_path, workspace=tmp_path, tracking_uri="", records_folder=records.folder)
    context = session.StudyContext(records, MemoryTracker(), None, settings, draw=lambda *_: [])
    available = Resources(1, Share(1, 1, 1, {"CPU": 1}), in_memory=False)
    monkeypatch.setattr(session, "resources", lambda *_, **__: nullcontext(available))
    monkeypatch.setattr(session, "run_study", lambda store, *_, **__: store.trials())
    store.set_seconds(9.0)
    assert session.run(store, context).failed == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "2 failed; python -m mis.tune --resume study --retry-failed tries them again"


@pytest.mark.parametrize(
    ("options", "way_on"),
    [({}, "`python -m mis.tune --resume s`"), ({"stage": True}, "`dvc repro`"), ({"folds": True}, "the same command")],
)
def test_on_a_full_disk_a_study_says_which_command_goes_on(params, records, tmp_path, monkeypatch, options, way_on):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(session, "resources", full)
    settings = Settings(root=tmp_path, workspace=tmp_path, tracking_uri="", records_folder=records.folder)
    context = session.StudyContext(records, MemoryTracker(), None, settings, draw=lambda *_: [])
    with pytest.raises(DiskFullError, match=f"make space, and {way_on} goes on from what is there"):
        session.run(StudyStore.create(tmp_path / "s", params, **options), context)


@pytest.mark.parametrize(
    ("ended", "begun", "total", "said"),
    [
        (2, 3, 4, "it goes on: 2 of 4 trials have ended, 3 were begun"),
        (4, 4, 2, "4 of 4 trials have ended, and no further one begins: tune.num_samples is 2 by now"),
        (1, 3, 2, "1 of 3 trials have ended, and no further one begins: tune.num_samples is 2 by now"),
    ],
)
def test_a_study_that_has_more_trials_than_it_is_to_have_says_so(ended, begun, total, said):
    assert messages.goes_on(ended, begun, total) == said


def test_the_way_on_of_a_search_is_that_of_who_began_it(params, tmp_path):
    by_hand = StudyStore.create(tmp_path / "a", params)
    stage = StudyStore.create(tmp_path / "b", params, stage=True)
    assert (by_hand.way_on, stage.way_on) == ("python -m mis.tune --resume a", "dvc repro")
    assert (by_hand.awaits_stage, stage.awaits_stage) == (False, True)
    stage.finish()
    assert (stage.way_on, stage.awaits_stage) == ("python -m mis.tune --resume b", False)
    stage.reopen()
    assert (stage.way_on, stage.awaits_stage) == ("python -m mis.tune --resume b", False)
