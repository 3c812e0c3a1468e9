"""What becomes of the trials of a study: in the store, in the tracker, and in what the driver keeps."""

import json
from math import nan

import pytest

from mis.files import write_json
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import Share
from mis.tune.epochs import reports
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from mis.tune.trial import TrialState

SHARE = Share(1, 1, 1, {"CPU": 1})


def epoch(dice, loss=0.5):
    return {"val/dice": dice, "train/loss": loss, "time/total_s": 1.0, "time/epoch_s": 1.0}


@pytest.fixture
def make_monitor(params, tmp_path):
    """Return the monitor of a study with some parameters replaced."""

    def make(**values):
        replaced = {f"tune.{name}": value for name, value in {"epochs": 3, "keep": 2, **values}.items()}
        store = StudyStore.create(tmp_path / "study", params.override(replaced))
        tracker = MemoryTracker()
        return StudyMonitor(store, SHARE, tracker, tracker.start_run(TUNE, "study"))

    return make


def train(monitor, history):
    """Let a trial have epochs, as its worker writes and reports them; return its number."""
    trial = monitor.store.next_trial()
    monitor.begin(trial)
    if history:
        checkpoint = monitor.store.checkpoints(trial.number).folder / f"epoch-{len(history):04d}"
        checkpoint.mkdir(parents=True)
        write_json(checkpoint / "history.json", history)
        (checkpoint / "best.keras").touch()
        for report in reports(history):
            monitor.epoch_ended(trial.number, report, attempt="1", worked_s=2.0)
    return trial.number


@pytest.mark.parametrize(
    ("history", "error", "state"),
    [
        ([epoch(0.1), epoch(0.2), epoch(0.3)], None, TrialState.COMPLETED),
        ([epoch(0.1)], None, TrialState.STOPPED),
        ([epoch(0.1), epoch(0.0, loss=nan)], None, TrialState.DIVERGED),
        ([epoch(0.1)], "ValueError: no", TrialState.FAILED),
        ([], "its process died", TrialState.FAILED),
    ],
)
def test_what_became_of_a_trial_is_the_same_everywhere(make_monitor, history, error, state):
    monitor = make_monitor()
    number = train(monitor, history)
    monitor.ended(number, error)
    monitor.ended(number, "again")
    (trial,) = monitor.store.trials()
    _, run = monitor.recorder.tracker.runs
    assert (trial.state, trial.epochs, trial.error) == (state, len(history), error or "")
    assert run.tags["mis.state"] == state
    assert run.status == ("FAILED" if state is TrialState.FAILED else "FINISHED")
    assert trial.row()["state"] == state
    assert json.loads((monitor.store.path / "trials" / "000" / "outcome.json").read_text())["state"] == state
    assert not monitor.budget.unended


@pytest.mark.parametrize(
    ("first", "did"), [(2, "went on from the checkpoint before"), (1, "had no checkpoint that could be read and began")]
)
def test_a_checkpoint_that_a_trial_could_not_read_is_said(make_monitor, monkeypatch, first, did):
    monitor, said = make_monitor(), []
    monkeypatch.setattr(monitor.console, "say", said.append)
    trial = monitor.store.next_trial()
    monitor.begin(trial)
    (monitor.store.checkpoints(trial.number).folder / ".epoch-0002.unreadable").mkdir(parents=True)
    monitor.epoch_ended(trial.number, reports([epoch(0.1), epoch(0.2)])[first - 1], attempt="2")
    (line,) = said
    assert line.startswith(f"trial 000 {did}")
    assert line.endswith(".epoch-0002.unreadable cannot be read")


def test_the_models_of_the_best_stay_and_no_outcome_is_read_for_that(make_monitor, monkeypatch):
    """With 1000 trials of 100 epochs, to read all of them took 1.9 s at each trial's end."""
    monitor = make_monitor()
    monkeypatch.setattr(StudyStore, "trials", lambda _: pytest.fail("every outcome is read again"))
    for dice in (0.3, 0.5, 0.2, 0.6, 0.4):
        monitor.ended(train(monitor, [epoch(dice)]))
    monkeypatch.undo()
    assert [trial.number for trial in monitor.store.trials() if trial.best_model] == [1, 3]


def test_what_was_kept_in_an_earlier_session_makes_room_for_a_better_one(make_monitor):
    monitor = make_monitor()
    for dice in (0.3, 0.5):
        monitor.ended(train(monitor, [epoch(dice)]))
    store = StudyStore.open(monitor.store.path)
    tracker = MemoryTracker()
    later = StudyMonitor(store, SHARE, tracker, tracker.start_run(TUNE, "study"))
    later.ended(train(later, [epoch(0.4)]))
    assert [trial.number for trial in store.trials() if trial.best_model] == [1, 2]
    assert later.budget.best_dice == 0.5


def test_nothing_of_a_trial_that_has_ended_stays_with_the_driver(make_monitor):
    monitor = make_monitor()
    for _ in range(4):
        monitor.ended(train(monitor, [epoch(0.1), epoch(0.2), epoch(0.3)]))
    assert not monitor._running
    assert all(not trial.history for trial in monitor.console._progress.trials.values())


def test_a_study_that_is_left_has_its_running_trials_interrupted(make_monitor):
    monitor = make_monitor()
    train(monitor, [epoch(0.1)])
    monitor.leave()
    _, run = monitor.recorder.tracker.runs
    assert (run.status, run.tags["mis.state"]) == ("KILLED", "killed")
    assert [trial.number for trial in monitor.store.interrupted()] == [0]


def test_a_study_that_goes_on_after_its_budget_says_what_ended_it_at_last(make_monitor):
    monitor = make_monitor()
    study = monitor.recorder.parent
    study.set_tags({"mis.ended_by": "tune.hours"})
    monitor.ended(train(monitor, [epoch(0.1), epoch(0.2), epoch(0.3)]))
    monitor.budget.all_begun = True
    monitor.leave()
    assert study.tags["mis.ended_by"] == "tune.num_samples"


def test_a_budget_that_is_reached_ends_the_trials_that_run(make_monitor):
    monitor = make_monitor(target_dice=0.25)
    train(monitor, [epoch(0.3)])
    assert monitor.budget.reached == "target_dice"
    monitor.leave()
    study, run = monitor.recorder.tracker.runs
    assert study.tags["mis.ended_by"] == "tune.target_dice"
    assert (run.status, run.tags["mis.state"]) == ("FINISHED", "stopped")
