"""Trials in a tracker: killed between any two steps, and on a full disk."""

from pathlib import Path

import pytest

from mis.files import DiskFullError
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import Share
from mis.tune.epochs import reports
from mis.tune.study.recorder import Recorder
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial, TrialState

HISTORY = [{"val/dice": dice, "train/loss": 1 - dice, "time/total_s": 1.0} for dice in (0.1, 0.4, 0.3)]
SHARE = Share(1, 1, 1, {"CPU": 1})


class KilledError(BaseException):
    """Stands for the end of the process."""


class Run:
    """A run of which each call may be the last one that the process does, or find the disk full."""

    def __init__(self, tracker, run):
        self.tracker, self.run = tracker, run

    @property
    def id(self):
        return self.run.id

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.tracker.step()
            return getattr(self.run, name)(*arguments, **options)

        return call


class Tracker(MemoryTracker):
    """A tracker that takes so many calls before the process is killed, or none while the disk is full."""

    def __init__(self):
        super().__init__()
        self.steps = float("inf")
        self.full = False

    def step(self):
        if self.full:
            raise DiskFullError(Path("outbox"))
        if self.steps <= 0:
            raise KilledError
        self.steps -= 1

    def open_run(self, *arguments, **options):
        self.step()
        return Run(self, super().open_run(*arguments, **options))


@pytest.fixture
def tracker():
    return Tracker()


@pytest.fixture
def store(params, tmp_path, monkeypatch):
    store = StudyStore.create(tmp_path / "study", params)
    history = []
    monkeypatch.setattr("mis.train.checkpoint.Checkpoints.history", lambda _: history)
    return store, history


def recorder_of(store, tracker):
    parent = tracker.open_run(TUNE, "study", key={"mis.study": store.name, "mis.kind": "study"})
    return Recorder(store, SHARE, tracker, parent, lambda run: run.set_tags({"from": "here"}))


def run_a_trial(recorder, store, trial):
    """Do what the driver does with a trial, from wherever it is."""
    store.catch_up()
    recorder.record_rest()
    if not store.folder.trial(trial.number).outcome.exists():
        recorder.begin(trial)
        for number in range(1, 4):
            recorder.log_epoch(trial, reports(HISTORY[:number])[-1], {})
        ended = Trial(trial.number, trial.values, TrialState.COMPLETED).with_history(HISTORY)
        store.end(ended)
        recorder.end(ended)
    recorder.tag_study({"mis.ended_by": "tune.num_samples"})
    recorder.record_rest()


def test_killed_between_any_two_steps_a_trial_is_recorded_once_and_wholly(store, tracker):
    store, history = store
    history += HISTORY
    kills, number = 0, 0
    while True:
        trial = store.next_trial()
        tracker.steps = number
        try:
            run_a_trial(recorder_of(store, tracker), store, trial)
        except KilledError:
            kills += 1
            tracker.steps = float("inf")
            run_a_trial(recorder_of(store, tracker), store, trial)
        else:
            break
        finally:
            number += 1
    assert kills > 8
    study, *runs = tracker.runs
    assert len(runs) == kills + 1
    assert study.tags["mis.ended_by"] == "tune.num_samples"
    for run in runs:
        assert run.parent == study.id
        assert run.metrics["val/dice"] == [(1, 0.1), (2, 0.4), (3, 0.3)]
        assert (run.status, run.tags["mis.state"], run.tags["from"]) == ("FINISHED", "completed", "here")
        assert run.params["train.learning_rate"]
    assert all(store.is_recorded(trial.number) for trial in store.trials())


def test_epochs_that_a_worker_did_not_report_are_recorded_with_the_next_one(store, tracker):
    store, history = store
    recorder, trial = recorder_of(store, tracker), store.next_trial()
    recorder.begin(trial)
    history += HISTORY
    recorder.log_epoch(trial, reports(history)[-1], {})
    assert tracker.runs[1].metrics["val/dice"] == [(1, 0.1), (2, 0.4), (3, 0.3)]


def test_what_a_full_disk_did_not_take_is_recorded_later(store, tracker):
    store, history = store
    recorder, trial = recorder_of(store, tracker), store.next_trial()
    recorder.begin(trial)
    tracker.full = True
    history += HISTORY
    changed = {**trial.values, "train.batch_size": 1}
    ended = Trial(trial.number, changed, TrialState.COMPLETED).with_history(HISTORY)
    store.end(ended)
    for missed in (
        lambda: recorder.log_epoch(trial, reports(history)[-1], {}),
        lambda: recorder.log_values(trial, {"train.batch_size": 1}),
        lambda: recorder.end(ended),
        recorder.record_rest,
    ):
        with pytest.raises(DiskFullError, match="there must be space on the disk of outbox"):
            missed()
    assert not store.is_recorded(trial.number)
    tracker.full = False
    recorder.record_rest()
    _, run = tracker.runs
    assert (run.status, len(run.metrics["val/dice"])) == ("FINISHED", 3)
    assert run.tags["mis.changed.train.batch_size"] == "1"
    assert store.is_recorded(trial.number)


def test_nothing_is_kept_of_a_trial_that_has_ended(store, tracker):
    store, _ = store
    recorder = recorder_of(store, tracker)
    for _ in range(3):
        trial = Trial(store.next_trial().number, {}, TrialState.COMPLETED).with_history(HISTORY)
        recorder.begin(trial)
        store.end(trial)
        recorder.end(trial)
    assert not recorder._runs
    assert not recorder._logged
