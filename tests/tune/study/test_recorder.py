"""Trials in a tracker that fails, and comes back."""

import pytest

from mis.errors import MisError
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import Share
from mis.tune.epochs import reports
from mis.tune.study.recorder import RETRY_S, Recorder
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial, TrialState

HISTORY = [{"val/dice": dice, "train/loss": 1 - dice, "time/total_s": 1.0} for dice in (0.1, 0.4, 0.3)]


class AwayError(Exception):
    """The tracker does not answer."""


class Tracker(MemoryTracker):
    """A tracker that is away for a while."""

    away = False

    def location(self):
        return "a server"

    def start_run(self, *arguments, **options):
        if self.away:
            raise AwayError("no answer\nfrom the server")
        return super().start_run(*arguments, **options)


@pytest.fixture
def tracker():
    return Tracker()


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(params, tmp_path, monkeypatch):
    store = StudyStore.create(tmp_path / "study", params)
    history = []
    monkeypatch.setattr("mis.train.checkpoint.Checkpoints.history", lambda _: history)
    store.journal  # noqa: B018 - made before the clock runs
    return store, history


@pytest.fixture
def recorder(store, tracker, clock, said):
    parent = tracker.start_run(TUNE, "study")
    share = Share(1, 1, 1, {"CPU": 1})
    return Recorder(store[0], share, tracker, parent, lambda _run: None, said.append, clock)


def test_a_tracker_that_fails_while_a_trial_begins_has_all_of_it_later(recorder, store, tracker, clock, said):
    store, history = store
    trial = store.next_trial()
    tracker.away = True
    recorder.begin(trial)
    assert said == ["the tracker does not answer, what it missed is recorded later: from the server"]
    for number in range(2):
        history.append(HISTORY[number])
        recorder.log_epoch(trial, reports(history)[-1], {})
    assert len(said) == 1, "it is left alone for a while"
    tracker.away = False
    clock.now = RETRY_S
    history.append(HISTORY[2])
    recorder.log_epoch(trial, reports(history)[-1], {})
    _, run = tracker.runs
    assert run.metrics["val/dice"] == [(1, 0.1), (2, 0.4), (3, 0.3)]
    assert run.params["train.learning_rate"] == str(trial.values["train.learning_rate"])


def test_what_an_outcome_lacks_is_recorded_at_the_end_or_the_error_is_raised(recorder, store, tracker, said):
    store, _ = store
    tracker.away = True
    trial = Trial(store.next_trial().number, {}, TrialState.COMPLETED).with_history(HISTORY)
    store.end(trial)
    recorder.end(trial)
    assert not store.is_recorded(trial.number)
    with pytest.raises(MisError, match=r"got from the server \(.*\); nothing is lost: .*--resume study`"):
        recorder.record_rest()
    tracker.away = False
    recorder.record_rest()
    _, run = tracker.runs
    assert (run.status, run.tags["mis.state"], len(run.metrics["val/dice"])) == ("FINISHED", "completed", 3)
    assert store.is_recorded(trial.number)
    assert len(said) == 1


def test_nothing_is_kept_of_a_trial_that_has_ended(recorder, store):
    """A run of MLflow keeps each point that it has logged: 0.4 MB for a trial of 100 epochs."""
    store, _ = store
    for _ in range(3):
        trial = Trial(store.next_trial().number, {}, TrialState.COMPLETED).with_history(HISTORY)
        recorder.begin(trial)
        store.end(trial)
        recorder.end(trial)
    assert not recorder._runs
    assert not recorder._logged


class Parent:
    """The study's own run, which is away with the tracker."""

    def __init__(self, tracker, run):
        self.tracker, self.run, self.id = tracker, run, run.id

    def set_tags(self, tags):
        if self.tracker.away:
            raise AwayError("no answer")
        self.run.set_tags(tags)


def test_a_tag_of_the_study_that_was_missed_is_recorded_at_the_end(recorder, tracker):
    (run,) = tracker.runs
    recorder.parent = Parent(tracker, run)
    tracker.away = True
    recorder.tag_study({"mis.ended_by": "tune.hours"})
    assert not run.tags
    tracker.away = False
    recorder.record_rest()
    assert run.tags == {"mis.ended_by": "tune.hours"}


def test_a_value_that_changed_while_the_tracker_was_away_is_recorded_with_the_outcome(recorder, store, clock):
    """It is not logged in between: the run is known, and would not be looked at again."""
    store, _ = store
    trial = store.next_trial()
    recorder.begin(trial)
    recorder._retry_at = clock.now + 1
    changed = {**trial.values, "train.batch_size": 1}
    recorder.log_values(trial, {"train.batch_size": 1})
    ended = Trial(trial.number, changed, TrialState.COMPLETED).with_history(HISTORY)
    store.end(ended)
    clock.now += RETRY_S
    recorder.end(ended)
    _, run = recorder.tracker.runs
    assert run.tags["mis.changed.train.batch_size"] == "1"
