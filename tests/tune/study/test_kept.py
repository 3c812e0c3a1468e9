"""A study that is kept on a server: fetched by another machine, whole or not at all, and once."""

import shutil
import time
from dataclasses import replace

import pytest

from mis.errors import MisError
from mis.storage import claim
from mis.train.checkpoint import Checkpoints
from mis.tune.study.kept import bring_back, bring_back_all, for_worker, is_kept, kept_on_storage
from mis.tune.study.store import StudyStore
from mis.tune.trial import TrialState
from tests.curves import next_epoch


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(claim, "SIGN_S", 0.2)
    monkeypatch.setattr(claim, "SILENT_S", 5.0)  # the times of objects are whole seconds
    monkeypatch.setattr(claim, "SETTLE_S", 0.0)


@pytest.fixture
def said():
    return []


@pytest.fixture
def study(tmp_path, tiny_params, remote):
    """A study on the first machine, which is kept on a server."""
    params = tiny_params.override({"tune.num_samples": 4, "tune.epochs": 3})
    store = StudyStore.create(tmp_path / "one" / "mine", params, stage=True)
    return StudyStore(store.path, params, remote.below("mine"))


def on(study, machine):
    """Return the study as another machine sees it, once it is fetched."""
    path = study.path.parents[1] / machine / study.name
    return StudyStore(path, study.params, study.remote)


def train(store, number, epochs):
    """Train a trial on a node of its own, as its worker does."""
    trial = store.begun(number)
    first = store.journal.suggested(number).values
    with for_worker(store, number, first, print) as own, own.checkpoints(number).here() as checkpoints:
        for _ in range(epochs):
            history = next_epoch(own, number, trial.values, checkpoints=checkpoints)
    return history


def end(store, trial, history):
    store.end(replace(trial.with_history(history), state=TrialState.COMPLETED))


def go_on(study, machine, say):
    """Let a machine go on with a study: fetched, and opened."""
    there = on(study, machine)
    bring_back(there.path, there.remote, say)
    return there


def test_a_trial_that_is_tried_again_goes_on_from_the_checkpoints_on_the_server(study, said, node, tmp_path):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as store:
        trial = store.next_trial()
        failed = replace(trial.with_history(train(store, 0, 2)), state=TrialState.FAILED)
        store.end(failed)
    epochs = {name for name in study.remote.list() if "epoch-" in name}
    assert epochs
    with kept_on_storage(study, said.append) as store:
        assert store.try_failed_again() == [0]
    there = set(study.remote.list())
    assert epochs <= there
    assert "trials/000/outcome.json" not in there
    node(tmp_path / "n2")
    with kept_on_storage(study, said.append) as store:
        assert len(train(store, 0, 1)) == 3
    assert said == []


def test_another_machine_goes_on_with_what_was_there(study, said, node, tmp_path):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as first:
        ended, running = first.next_trial(), first.next_trial()
        end(first, ended, train(first, 0, 3))
        train(first, 1, 2)
    shutil.rmtree(study.path)
    other = go_on(study, "two", said.append)
    assert said == [f"study mine is fetched from {study.remote.url}"]
    with kept_on_storage(other, said.append) as second:
        assert [trial.number for trial in second.trials()] == [0]
        assert [trial.number for trial in second.interrupted()] == [1]
        assert second.begun(1).values == running.values
        assert len(train(second, 1, 1)) == 3
        assert second.next_trial().number == 2
    assert not list(other.path.glob("trials/*/epoch-*")), "what trials have is not fetched with the study"


def test_a_trial_whose_batch_was_halved_keeps_its_epochs(study, said, node, tmp_path):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as first:
        trial = first.next_trial()
        train(first, 0, 2)
        assert first.halve_batch(0, trial.values, 1)
        assert first.begun(0).values != trial.values
        assert len(train(first, 0, 1)) == 3


def test_a_trial_that_is_suggested_anew_with_other_values_begins_anew(study, said, node, tmp_path):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as first:
        first.next_trial()
        train(first, 0, 2)
        with for_worker(first, 0, {"train.learning_rate": 0.5}, print) as own, own.checkpoints(0).here() as checkpoints:
            assert checkpoints.history() == []


def test_what_was_sent_and_is_not_in_the_journal_is_dropped(study, said, node, tmp_path):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as first:
        first.next_trial()
        train(first, 0, 1)
    study.remote.write(b"{}", "trials/003/outcome.json")
    other = go_on(study, "two", said.append)
    assert [trial.name for trial in (other.path / "trials").iterdir() if trial.name == "003"] == []
    with kept_on_storage(other, said.append) as second:
        assert second.trials() == []


def test_what_was_cut_off_in_its_first_sending_is_no_study(study, said):
    study.remote.write(b'{"sessions": ["a"], "url": "x"}', "session.json")
    assert not is_kept(study.remote, said.append)
    bring_back(on(study, "two").path, study.remote, said.append)
    assert not on(study, "two").path.exists()


def test_a_machine_that_is_behind_fetches_what_the_other_has_done(study, said, node, tmp_path):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as first:
        first.next_trial()
    other = go_on(study, "two", said.append)
    with kept_on_storage(other, said.append) as second:
        trial = second.next_trial()
        end(second, trial, train(second, 1, 3))
    with pytest.raises(MisError, match="which have gone on apart"), kept_on_storage(study, said.append):
        pass
    back = go_on(study, "one", said.append)
    with kept_on_storage(back, said.append) as third:
        assert [ended.number for ended in third.trials()] == [1]
        assert third.journal.numbers() == [0, 1]


def test_what_has_not_been_sent_is_not_overwritten(study, said, node, tmp_path, storage_server):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as first:
        first.next_trial()
        while study.remote.read("journal.log") != (study.path / "journal.log").read_bytes():
            time.sleep(0.05)
        storage_server.down()
        first.next_trial()
    assert "study mine is whole here, and is sent when it is gone on with" in said[-1]
    storage_server.up()
    other = go_on(study, "two", said.append)
    with kept_on_storage(other, said.append) as second:
        assert second.journal.numbers() == [0]
    with pytest.raises(MisError, match="which have gone on apart"):
        go_on(study, "one", said.append)
    assert StudyStore.open(study.path).journal.numbers() == [0, 1]


def test_a_study_that_was_begun_on_this_machine_alone_goes_on_on_the_server(study, said, node, tmp_path):
    node(tmp_path / "n1")
    plain = StudyStore(study.path, study.params)
    with kept_on_storage(plain, said.append) as first:
        trial = first.next_trial()
        for _ in range(2):
            next_epoch(first, 0, trial.values)
    with kept_on_storage(study, said.append) as second:
        assert len(second.checkpoints(0).history()) == 2
        assert len(train(second, 0, 1)) == 3
    assert Checkpoints(study.folder.trial(0).path).newest() is None
    with pytest.raises(MisError, match=r"must go on where it is kept, in s3.*got storage\.path null"):
        kept_on_storage(plain, said.append).__enter__()


def test_a_stage_is_given_what_it_may_go_on_with(study, said, remote, tmp_path, tiny_params):
    with kept_on_storage(study, said.append) as first:
        first.next_trial()
    for name, options in (("by-hand", {}), ("taken", {"stage": True})):
        store = StudyStore.create(tmp_path / "one" / name, tiny_params, **options)
        with kept_on_storage(StudyStore(store.path, store.params, remote.below(name)), said.append) as own:
            own.next_trial()
        if name == "taken":
            own.finish()
    bring_back_all(tmp_path / "two", remote, said.append)
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["mine"]


def test_one_that_runs_elsewhere_is_passed_over_by_a_stage_and_refused_by_name(study, said, remote, tmp_path):
    with kept_on_storage(study, said.append) as first:
        first.next_trial()
        bring_back_all(tmp_path / "two", remote, said.append)
        assert "study mine is passed over" in said[-1]
        assert "must run once at a time" in said[-1]
        with pytest.raises(MisError, match="study mine must run once at a time"):
            go_on(study, "three", said.append)


def test_a_finished_study_leaves_no_checkpoint_there(study, said, node, tmp_path):
    node(tmp_path / "n1")
    with kept_on_storage(study, said.append) as first:
        trial = first.next_trial()
        end(first, trial, train(first, 0, 3))
        first.fetch_models()
        (ended,) = first.trials()
        assert ended.best_model.is_file()
        assert ended.best_model.parent.name == "epoch-0003"
    first.finish()
    assert not [name for name in study.remote.list() if "epoch-" in name]
    assert "finished" in study.remote.list()
    first.reopen()
    assert {"reopened"} == {"finished", "reopened"} & set(study.remote.list())
