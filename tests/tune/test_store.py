"""A study on disk, half-written in every way."""

import json

import pytest

from mis.errors import MisError
from mis.tune.store import StudyStore, Trial, best_trial

HISTORY = [{"val/dice": 0.3, "train/loss": 0.7}, {"val/dice": 0.5, "train/loss": 0.5}]


@pytest.fixture
def store(params, tmp_path):
    return StudyStore.create(tmp_path / "tune" / "study", params)


def again(store):
    """Return the study as another process finds it."""
    return StudyStore.open(store.folder)


def ended(asked, history=HISTORY, state="completed", **values):
    return Trial(f"{asked.number:03d}", asked.values, state, history, 1.5, **values)


def test_what_was_asked_for_and_has_not_ended_is_interrupted(store):
    first, second, third = (store.ask() for _ in range(3))
    store.end(second.number, ended(second))
    assert again(store).interrupted() == [first, third]
    assert again(store).trials() == [ended(second)]


def test_the_next_trial_is_what_it_would_have_been(store, params, tmp_path):
    undisturbed = StudyStore.create(tmp_path / "tune" / "other", params)
    for _ in range(8):
        own, expected = again(store), undisturbed
        asked = own.ask()
        assert asked == expected.ask()
        own.end(asked.number, ended(asked, [{"val/dice": asked.values["train.learning_rate"], "train/loss": 0.1}]))
        expected.end(asked.number, ended(asked, [{"val/dice": asked.values["train.learning_rate"], "train/loss": 0.1}]))


def test_an_outcome_that_optuna_was_not_told_of_is_told(store):
    asked = store.ask()
    (store.folder / "trials" / "000").mkdir(parents=True)
    (store.folder / "trials" / "000" / "outcome.json").write_text(
        json.dumps({"name": "000", "values": asked.values, "state": "completed", "history": HISTORY, "elapsed_s": 1.0})
    )
    other = again(store)
    assert other.interrupted() == []
    other.catch_up()
    assert [trial.value for trial in again(store).study.trials] == [0.5]


def test_a_line_that_was_torn_by_a_kill_is_cut_off(store):
    asked = store.ask()
    with (store.folder / "journal.log").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    other = again(store)
    with other.held():
        assert other.interrupted() == [asked]
        following = other.ask()
    assert again(store).interrupted() == [asked, following]


def test_a_suggestion_that_was_interrupted_is_completed_as_it_would_have_been(store, params, tmp_path):
    number = store.study.ask().number
    (asked,) = again(store).interrupted()
    assert asked.number == number
    assert asked == StudyStore.create(tmp_path / "tune" / "other", params).ask()


def test_a_trial_without_an_epoch_is_a_failure_for_optuna_too(store):
    asked = store.ask()
    store.end(asked.number, ended(asked, [], "failed", error="ValueError: no"))
    assert [trial.state.name for trial in again(store).study.trials] == ["FAIL"]
    assert again(store).trials()[0].error == "ValueError: no"


def test_a_study_is_found_by_its_parameters_and_records(store, params):
    folder = store.folder.parent
    assert StudyStore.find(folder, params, "") == store
    assert StudyStore.find(folder, params.override({"train.seed": 5}), "") is None
    assert StudyStore.find(folder, params, "others") is None
    (store.folder / "study.json").write_text('{"params": {"train": {}}, "records": ""}')
    assert StudyStore.find(folder, params, "") is None
    with pytest.raises(MisError, match="has parameters that this version does not take"):
        StudyStore.open(store.folder)


def test_two_processes_do_not_run_one_study(store):
    with store.held(), pytest.raises(MisError, match="must run once at a time, got study"), again(store).held():
        pass


def test_a_study_that_is_not_there_is_refused_with_those_that_are(store):
    with pytest.raises(MisError, match="got studdy; there is study"):
        StudyStore.open(store.folder.parent / "studdy")
    with pytest.raises(MisError, match="got any; there is none"):
        StudyStore.open(store.folder / "any")


def test_the_best_trial_is_the_earliest_of_equals():
    def trial(name, *scores):
        return Trial(name, {}, "completed", [{"val/dice": score} for score in scores], 1.0)

    trials = [trial("000", 0.2), trial("001", 0.7, 0.6), trial("002", 0.7)]
    assert best_trial(trials).name == "001"


def test_without_a_single_epoch_there_is_no_best_trial():
    failed = Trial("000", {}, "failed", [], 1.0, error="ValueError: no")
    with pytest.raises(MisError, match="ValueError: no"):
        best_trial([failed])
