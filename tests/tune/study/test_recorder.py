"""Trials in a tracker that fails, and comes back."""

import pytest

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

    def start_run(self, *arguments, **options):
        if self.away:
            raise AwayError("no answer\nfrom the server")
        return super().start_run(*arguments, **options)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def tracker():
    return Tracker()


@pytest.fixture
def clock():
    return Clock()


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
    with pytest.raises(AwayError):
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
