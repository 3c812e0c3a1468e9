"""A study on disk, half-written in every way."""

import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mis.errors import MisError
from mis.files import DiskFullError
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial, TrialState, best_trial

ROOT = Path(__file__).parents[3]

HISTORY = [{"val/dice": 0.3, "train/loss": 0.7}, {"val/dice": 0.5, "train/loss": 0.5}]


@pytest.fixture
def store(params, tmp_path):
    return StudyStore.create(tmp_path / "tune" / "study", params, stage=True)


def again(store):
    """Return the study as another process finds it."""
    return StudyStore.open(store.path)


def ended(trial, history=HISTORY, state=TrialState.COMPLETED, **values):
    return replace(trial, state=state, elapsed_s=1.5, **values).with_history(history)


def test_what_was_asked_for_and_has_not_ended_is_interrupted(store):
    first, second, third = (store.next_trial() for _ in range(3))
    store.end(ended(second))
    assert again(store).interrupted() == [first, third]
    assert again(store).trials() == [ended(second)]


def test_the_next_trial_is_what_it_would_have_been(store, params, tmp_path):
    undisturbed = StudyStore.create(tmp_path / "tune" / "other", params)
    for _ in range(8):
        own, expected = again(store), undisturbed
        asked = own.next_trial()
        assert asked == expected.next_trial()
        own.end(ended(asked, [{"val/dice": asked.values["train.learning_rate"], "train/loss": 0.1}]))
        expected.end(ended(asked, [{"val/dice": asked.values["train.learning_rate"], "train/loss": 0.1}]))


def test_an_outcome_that_optuna_was_not_told_of_is_told(store):
    asked = store.next_trial()
    (store.path / "trials" / "000").mkdir(parents=True)
    (store.path / "trials" / "000" / "outcome.json").write_text(
        json.dumps({"values": asked.values, "state": "completed", "history": HISTORY, "elapsed_s": 1.0})
    )
    other = again(store)
    assert other.interrupted() == []
    other.catch_up()
    assert [trial.value for trial in again(store).journal.study.trials] == [0.5]


def test_a_line_that_was_torn_by_a_kill_is_cut_off(store):
    asked = store.next_trial()
    with (store.path / "journal.log").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    other = again(store)
    with other.locked():
        assert other.interrupted() == [asked]
        following = other.next_trial()
    assert again(store).interrupted() == [asked, following]


def test_a_suggestion_that_was_interrupted_is_completed_as_it_would_have_been(store, params, tmp_path):
    number = store.journal.study.ask().number
    (asked,) = again(store).interrupted()
    assert asked.number == number
    assert asked == StudyStore.create(tmp_path / "tune" / "other", params).next_trial()


def test_a_trial_that_failed_stays_open_for_optuna_and_can_be_tried_again(store):
    asked = store.next_trial()
    store.end(ended(asked, [], TrialState.FAILED, error="ValueError: no"))
    assert [trial.state.name for trial in again(store).journal.study.trials] == ["RUNNING"]
    assert again(store).trials()[0].error == "ValueError: no"
    assert again(store).interrupted() == []
    assert again(store).try_failed_again() == [0]
    assert again(store).interrupted() == [asked]
    again(store).end(ended(asked))
    assert [trial.value for trial in again(store).journal.study.trials] == [0.5]


def test_a_trial_that_was_stopped_is_one_that_samplers_learn_from(store):
    asked = store.next_trial()
    store.end(ended(asked, state=TrialState.STOPPED))
    (known,) = again(store).journal.study.trials
    assert (known.state.name, known.value, known.intermediate_values) == ("PRUNED", 0.5, {1: 0.3, 2: 0.5})


def test_a_study_is_found_by_its_parameters_and_records(store, params):
    folder = store.path.parent
    by_hand = StudyStore.create(folder / "by-hand", params)
    assert not by_hand.began_in_stage
    assert StudyStore.find(folder, params, "") == store, "what a person began is that person's"
    assert StudyStore.find(folder, params.override({"train.seed": 5}), "") is None
    assert StudyStore.find(folder, params, "others") is None
    (store.path / "study.json").write_text('{"params": {"train": {}}, "records": ""}')
    assert StudyStore.find(folder, params, "") is None
    with pytest.raises(MisError, match="has parameters that this version does not take"):
        StudyStore.open(store.path)


def test_two_processes_do_not_run_one_study(store):
    rule = f"must run once at a time, got study, which process {os.getpid()} on {platform.node()} runs; wait for that"
    with store.locked(), pytest.raises(MisError, match=rule), again(store).locked():
        pass
    (store.path / "runner").write_bytes(b"\xff\xff")
    with again(store).locked():
        (store.path / "runner").unlink()
        with pytest.raises(MisError, match="got study, which another process runs"), again(store).locked():
            pass
    assert not (store.path / "runner").exists()


def test_a_study_that_is_not_there_is_refused_with_those_that_are(store):
    with pytest.raises(MisError, match="got studdy; there is study"):
        StudyStore.open(store.path.parent / "studdy")
    with pytest.raises(MisError, match="got any; there is none"):
        StudyStore.open(store.path / "any")


def test_the_best_trial_is_the_earliest_of_equals():
    def trial(number, *scores):
        return Trial(number, {}).with_history([{"val/dice": score} for score in scores])

    trials = [trial(0, 0.2), trial(1, 0.7, 0.6), trial(2, 0.7)]
    assert best_trial(trials).name == "001"


def test_without_a_single_epoch_there_is_no_best_trial():
    failed = Trial(0, {}, TrialState.FAILED, error="ValueError: no")
    with pytest.raises(MisError, match="ValueError: no"):
        best_trial([failed])


def test_starting_points_come_first_and_are_filled_up(params, tmp_path):
    starts = [{"train.learning_rate": 0.004, "model.norm": "group"}, {"model.norm": "batch"}]
    store = StudyStore.create(tmp_path / "tune" / "study", params, starts=starts)
    first, second, third = store.next_trial(), again(store).next_trial(), again(store).next_trial()
    assert {name: first.values[name] for name in starts[0]} == starts[0]
    assert second.values["model.norm"] == "batch"
    assert set(first.values) == set(second.values) == set(third.values) == set(params.tune.space)
    assert [one.number for one in (first, second, third)] == [0, 1, 2]


def test_a_starting_point_that_a_killed_process_has_not_taken_is_taken_once(params, tmp_path):
    store = StudyStore.create(tmp_path / "tune" / "study", params, starts=[{"train.learning_rate": 0.004}])
    store.journal.study.enqueue_trial({"train.learning_rate": 0.004})  # and then it was killed
    asked = [again(store).next_trial() for _ in range(2)]
    assert [one.number for one in asked] == [0, 1]
    assert asked[0].values["train.learning_rate"] == 0.004
    assert asked[1].values["train.learning_rate"] != 0.004


def test_half_a_batch_is_remembered_and_shared_evenly(params, tmp_path):
    store = StudyStore.create(tmp_path / "study", params.override({"train.batch_size": 12, "tune.retry_oom": True}))
    asked = store.next_trial()
    sizes = []
    while store.halve_batch(0, asked.values, devices=2):
        sizes.append(again(store).values(0, asked.values)["train.batch_size"])
    assert sizes == [6, 2], "a multiple of two devices, as long as there is one"
    (interrupted,) = again(store).interrupted()
    assert interrupted.values == {**asked.values, "train.batch_size": 2}


def test_no_half_batch_where_the_study_wants_none(params, tmp_path):
    store = StudyStore.create(tmp_path / "study", params.override({"train.batch_size": 8, "tune.retry_oom": False}))
    asked = store.next_trial()
    assert not store.halve_batch(0, asked.values, devices=1)
    assert store.values(0, asked.values) == asked.values


def test_optuna_is_told_of_both_objectives(params, tmp_path):
    two = {"tune.second_objective": "parameters", "tune.scheduler.name": "none"}
    store = StudyStore.create(tmp_path / "study", params.override(two))
    for dice, weights in ((0.5, 100.0), (0.6, 300.0), (0.4, 200.0)):
        asked = store.next_trial()
        history = [{"val/dice": dice, "train/loss": 0.5, "model/parameters": weights, "time/total_s": 1.0}]
        store.end(ended(asked, history))
    assert [trial.values for trial in again(store).journal.study.trials] == [[0.5, 100.0], [0.6, 300.0], [0.4, 200.0]]
    assert again(store).journal.pareto_front() == ["000", "001"]


def test_seconds_do_not_depend_on_which_trial_traced_the_network(params, tmp_path):
    two = {"tune.second_objective": "seconds", "tune.scheduler.name": "none"}
    store = StudyStore.create(tmp_path / "study", params.override(two))
    for epochs_s in ((30.0, 2.0, 2.0, 2.0), (2.0, 2.0, 2.0, 2.0), (2.0, 2.0, 30.0, 2.0), (30.0, 2.0)):
        asked = store.next_trial()
        history = [{"val/dice": 0.5, "train/loss": 0.5, "time/epoch_s": seconds} for seconds in epochs_s]
        store.end(ended(asked, history))
    values = [trial.values[1] for trial in again(store).journal.study.trials]
    assert values == [8.0, 8.0, 8.0, 4.0]


def test_a_study_goes_on_with_another_budget(store, params):
    store.next_trial()
    more = again(store).with_params(params.override({"tune.num_samples": 99}))
    assert more.total == again(store).total == 99
    assert len(again(store).interrupted()) == 1


def test_a_grid_ends_with_its_last_point(params, tmp_path):
    """Optuna's own would end the study, which only one that it runs itself can be."""
    space = {"model.norm": {"type": "choice", "values": ["batch", "group"]}}
    grid = params.override({"tune.space": space, "tune.sampler.name": "grid", "tune.scheduler.name": "none"})
    store = StudyStore.create(tmp_path / "study", grid)
    for _ in range(2):
        asked = store.next_trial()
        store.end(ended(asked))
    assert {trial.values["model.norm"] for trial in store.trials()} == {"batch", "group"}


def test_the_result_of_another_batch_than_suggested_does_not_count(params, tmp_path):
    space = {"train.batch_size": {"type": "choice", "values": [4, 8]}}
    store = StudyStore.create(tmp_path / "study", params.override({"tune.space": space}))
    for halved in (False, True):
        asked = store.next_trial()
        if halved:
            assert store.halve_batch(asked.number, asked.values, devices=1)
        values = store.values(asked.number, asked.values)
        store.end(ended(replace(asked, values=values)))
    assert [trial.value for trial in store.journal.study.trials] == [0.5, None]
    assert [trial.best["val/dice"] for trial in store.trials()] == [0.5, 0.5]


def test_what_follows_starting_points_is_no_trial_of_the_study_that_they_come_from(params, tmp_path):
    random = params.override({"tune.sampler.name": "random"})
    before = StudyStore.create(tmp_path / "before", random)
    first = [before.next_trial().values for _ in range(4)]
    after = StudyStore.create(tmp_path / "after", random, starts=first[:2])
    second = [after.next_trial().values for _ in range(4)]
    assert second[:2] == first[:2]
    rates = [one["train.learning_rate"] for one in (*first, *second[2:])]
    assert len(set(rates)) == 6


def test_a_finished_study_is_not_found_and_goes_on_where_it_is_wanted(store, params):
    trial = store.next_trial()
    store.end(ended(trial))
    (store.path / "trials" / "000" / "epoch-0002").mkdir()
    store.finish()
    assert StudyStore.find(store.path.parent, params, "") is None
    assert not list(store.path.glob("trials/*/epoch-*"))
    later = again(store)
    later.reopen()
    assert StudyStore.find(store.path.parent, params, "") is None, "its best model has gone: a stage cannot take it"
    assert [known.best_dice for known in later.trials()] == [0.5]
    assert later.next_trial().number == 1


def test_a_study_that_was_half_finished_by_a_kill_is_not_begun_again(store, params, monkeypatch):
    """The mark comes first: with its models half-deleted it is not taken for one that is to go on."""
    store.end(ended(store.next_trial()))
    (store.path / "trials" / "000" / "epoch-0002").mkdir()

    def killed(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mis.files.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.finish()
    assert StudyStore.find(store.path.parent, params, "") is None
    assert len(again(store).trials()) == 1


# ---- What cannot be read ----


@pytest.mark.parametrize("content", [b"", b'{"values": {"train', b"[]", b"\x00\x00"])
@pytest.mark.parametrize("name", ["outcome.json", "values.json", "change.json", "cloned.json"])
def test_a_file_that_cannot_be_read_costs_its_trial_alone(store, name, content):
    first, second = store.next_trial(), store.next_trial()
    for trial in (first, second):
        store.end(ended(trial))
        store.set_values(trial.number, trial.values)
        store.set_recorded(trial.number)
    path = store.path / "trials" / "000" / name
    path.write_bytes(content)
    (line,) = again(store).mend()
    assert line.startswith(f"{path} cannot be read: ")
    assert not path.exists()
    assert not again(store).is_recorded(0)
    assert again(store).mend() == []
    if name == "outcome.json":
        assert again(store).trials() == [ended(second)]
        assert again(store).interrupted() == [first]
    else:
        assert again(store).trials() == [ended(first), ended(second)]


@pytest.mark.parametrize("content", ["", '{"params": ', "[]", "{}"])
def test_a_study_that_cannot_be_read_leaves_the_others(store, params, content):
    other, said = StudyStore.create(store.path.parent / "other", params), []
    (other.path / "study.json").write_text(content)
    assert StudyStore.find(store.path.parent, params, "", say=said.append) == store
    (line,) = said
    assert line.startswith(f"study other is passed over: {other.path}/study.json must be readable: ")
    (other.path / "finished").touch()
    assert StudyStore.find(store.path.parent, params, "", say=pytest.fail) == store, "nobody misses it"
    with pytest.raises(MisError, match=r"other/study.json must be readable: .*; the other studies go on"):
        StudyStore.open(other.path)


def test_a_journal_with_a_torn_line_in_its_middle_is_refused_by_its_line(store):
    store.next_trial()
    journal = store.path / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    for line in (lines[1][:20] + b"\n", lines[1].replace(b"study", b"st\xffdy"), b"\xff\xfe\x80\n"):
        journal.write_bytes(b"".join([*lines[:1], line, *lines[2:]]))
        with pytest.raises(
            MisError, match=r"journal.log must have an entry of Optuna's in each line, got another in line 2"
        ):
            again(store).interrupted()


def test_a_study_whose_journal_cannot_be_read_is_passed_over(store, params):
    older = StudyStore.create(store.path.parent / "older", params, stage=True)
    os.utime(older.path / "study.json", (1, 1))
    for _ in range(2):
        store.next_trial()
    journal, said = store.path / "journal.log", []
    whole = journal.read_bytes()
    first, _, *rest = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join([first, b"\0\0\n", *rest]))
    assert StudyStore.find(store.path.parent, params, "", say=said.append) == older
    assert said[0].startswith(f"study study is passed over: {journal} must have an entry of Optuna's in each line, got")
    journal.write_bytes(b"".join([first, b"7\n", *rest]))  # JSON, and no entry
    assert StudyStore.find(store.path.parent, params, "", say=said.append) == older
    assert said[1].startswith(f"study study is passed over: {journal} must be readable: ")
    journal.write_bytes(whole)
    assert StudyStore.find(store.path.parent, params, "", say=pytest.fail) == store
    assert journal.read_bytes() == whole, "another process may run it: nothing is written"
    assert not (older.path / "journal.log").exists()


def test_a_full_disk_leaves_the_journal_as_it_was_and_the_study_goes_on(params, small_disk):
    disk = small_disk("200k")
    store = StudyStore.create(disk / "tune" / "study", params)
    first = store.next_trial()
    hog = disk / "hog"
    with suppress(OSError), hog.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1024)

    def suggest_many():
        for _ in range(99):
            store.next_trial()

    with pytest.raises(DiskFullError, match="there must be space on the disk of"):
        suggest_many()
    with pytest.raises(DiskFullError, match="make space"):
        store.end(ended(first, HISTORY * 200))
    begun = len(again(store).interrupted())
    hog.unlink()
    assert len(store.interrupted()) == begun, "the same process goes on with what the file has"
    following = store.next_trial()
    assert following.number == begun
    store.end(ended(first))
    assert again(store).trials() == [ended(first)]
    assert [trial.number for trial in again(store).interrupted()] == list(range(1, begun + 1))


def test_of_processes_that_begin_the_same_study_at_once_one_does(tmp_path, tiny_params):
    source = (
        "import sys; from pathlib import Path; from mis.params.load import Params; "
        "from mis.tune.study.store import StudyStore; from mis.tune.study.messages import NameTakenError\n"
        "params = Params.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    StudyStore.create(Path(sys.argv[2]), params)\nexcept NameTakenError:\n    print('taken')\n"
        "else:\n    print('begun')\n"
    )
    (tmp_path / "params.json").write_text(tiny_params.model_dump_json())
    command = [sys.executable, "-c", source, str(tmp_path / "params.json"), str(tmp_path / "tune" / "mine")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = sorted(process.communicate(timeout=100)[0].strip() for process in processes)
    assert ends == ["begun", "taken", "taken", "taken"]
    assert StudyStore.open(tmp_path / "tune" / "mine").params == tiny_params
