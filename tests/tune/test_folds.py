"""`train.folds` as a user sets it: a model for each fold, their scores, the ensemble, and what a kill leaves."""

import csv
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mis.data.records.reader import read_records
from mis.errors import MisError
from mis.evaluate.folds import score_folds
from mis.evaluate.session import evaluate
from mis.model.card import read_card
from mis.predict.model import load_segmenter
from mis.predict.source import best_models
from mis.settings import Settings
from mis.tune.folds import Folds, _check_all_trained, _check_started_alone, _find_or_create, _fingerprint, as_study
from mis.tune.resume import resume
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial, TrialState
from tests.searches import OURS, kill, recorded, tracker_of, wait_until

SETS = ("train.folds=3", "train.epochs=3", "train.batch_size=2", "model.depth=1", "model.base_filters=4")


@pytest.fixture
def folds_project(project, params, tiny_root):
    """The project with the data set of its records, which has the truth."""
    root = project / params.data.root
    root.parent.mkdir(parents=True, exist_ok=True)
    root.symlink_to(tiny_root)
    return project


def begin(warm, project, *arguments):
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    sets = [part for value in SETS for part in ("--set", value)]
    return warm.start(*arguments, *sets, module="mis.train", cwd=project, env=own | {"MIS_DEVICES": "1"})


@pytest.mark.slow
def test_one_command_trains_every_fold_and_goes_on_after_a_kill(warm, folds_project, params, tiny, tmp_path):
    process = begin(warm, folds_project)
    tune = folds_project / "checkpoints" / "tune"
    wait_until(process, lambda: list(tune.glob("*/trials/*/outcome.json")))
    kill(process)
    (study,) = tune.iterdir()
    own = params.override({name: json.loads(value) for name, _, value in (text.partition("=") for text in SETS)})
    settings = Settings(root=folds_project, workspace=folds_project, tracking_uri=tracker_of(folds_project).uri)
    with pytest.raises(MisError, match="go on with the command that began them"):
        resume(study.name, settings, draw=lambda *_: [])

    # What changes nothing of the trainings may be another by then.
    out, err = begin(warm, folds_project, "--set", "evaluate.pictures=0").communicate(timeout=300)
    assert "of 3 trials have ended" in err
    assert [line.split(":")[0] for line in out.splitlines()[:3]] == ["fold 0", "fold 1", "fold 2"]
    assert list(tune.iterdir()) == [study]
    assert not list(study.glob("trials/*/epoch-*"))

    # One parent run with three children, the scores and the ensemble.
    tracker = tracker_of(folds_project)
    children, parent = recorded(folds_project)
    assert sorted(run.data.params["train.fold"] for run in children) == ["0", "1", "2"]
    assert {run.info.run_name for run in children} == {"fold-0", "fold-1", "fold-2"}
    assert parent.info.run_name == study.name
    assert parent.data.tags["mis.folds"] == "3"
    assert "mis.best_trial" not in parent.data.tags
    with pytest.raises(MisError, match="takes the run of a search"):
        best_models(parent.info.run_id, 2, tmp_path, lambda: tracker)
    ensemble = tracker.fetch_file(parent.info.run_id, "model/best.keras", tmp_path)
    assert read_card(ensemble).validated_on == "each of 3 folds"
    with tracker.fetch_file(parent.info.run_id, "scores/folds.csv", tmp_path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    records = read_records(folds_project / "data" / "records")
    assert sorted(row["case"] for row in rows) == sorted((*records.split.train, *records.split.val))
    for row in rows:
        assert row["case"] in records.cases_of_folds(3)[int(row["fold"])]
    dice = np.mean([float(row["dice"]) for row in rows])
    assert parent.data.metrics["out_of_fold/dice"] == pytest.approx(dice, abs=1e-6)

    # A case out of fold is scored by the model of its fold alone, which is the run's of that fold.
    (child,) = [run for run in children if run.data.params["train.fold"] == "1"]
    (tmp_path / "child").mkdir()
    alone = load_segmenter([tracker.fetch_file(child.info.run_id, "model/best.keras", tmp_path / "child")])
    image = np.random.default_rng(0).normal(size=(16, 16, 16, 4)).astype(np.float32)
    member = load_segmenter([ensemble]).models[1]
    np.testing.assert_allclose(
        member.predict_on_batch(image[None])[0], alone.models[0].predict_on_batch(image[None])[0], atol=1e-6
    )

    # The stage evaluate scores the ensemble on the test cases and its members out of fold.
    results = tmp_path / "results"
    scores = evaluate({"train": (ensemble, 0.5)}, own, settings, results)
    assert [case.case for case in scores.cases] == list(records.split.test)
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["out_of_fold/dice"] == pytest.approx(dice, abs=1e-6)
    with pytest.raises(MisError, match=r"a member for each of train.folds = 2, got 3"):
        score_folds(ensemble, records, tiny, own.override({"train.folds": 2}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train.fold": 1}, "fold must be 0 where folds is null, got 1"),
        ({"train.folds": 3, "train.fold": 3}, "fold must be below folds = 3, got 3"),
        ({"train.folds": 1}, "train.folds"),
    ],
)
def test_a_fold_must_be_there(params, values, words):
    with pytest.raises(MisError, match=words):
        params.override(values)


def test_the_folds_are_trials_with_nothing_else_searched(params):
    study = as_study(params.override({"train.folds": 4, "train.fold": 2, "train.epochs": 9}))
    assert study.tune.space["train.fold"].grid() == (0, 1, 2, 3)
    assert (study.tune.num_samples, study.tune.keep, study.tune.epochs) == (4, 4, 9)
    assert (study.tune.sampler.name, study.tune.scheduler.name) == ("grid", "none")
    # The same whichever fold is compared: the study goes on all the same.
    assert study == as_study(params.override({"train.folds": 4, "train.epochs": 9}))


def trial_of(fold, dices, state=TrialState.COMPLETED, model=None):
    history = [{"val/dice": dice, "val/loss": 1 - dice, "model/parameters": 7, "time/total_s": 1.0} for dice in dices]
    trial = Trial(
        2 - fold, {"train.fold": fold}, state, error="it broke" if state == "failed" else "", best_model=model
    )
    return trial.with_history(history)


def test_figures_of_folds_are_means_over_cases():
    trials = [trial_of(0, [0.2, 0.5]), trial_of(1, [0.4, 0.8, 0.6])]
    folds = Folds(SimpleNamespace(trials=trials[::-1], elapsed_s=12.0), sizes=[3, 1])
    summary = folds.summary()
    assert summary["dice"] == pytest.approx((3 * 0.5 + 0.8) / 4)
    assert summary["fold_dice"] == {"0": 0.5, "1": 0.8}
    assert (summary["epochs"], summary["parameters"], summary["elapsed_s"]) == (5, 14, 12.0)
    # Of the epochs that both have had.
    assert [epoch["val/dice"] for epoch in folds.history] == pytest.approx([(3 * 0.2 + 0.4) / 4, (3 * 0.5 + 0.8) / 4])


@pytest.mark.parametrize(
    ("state", "has_model", "words"),
    [
        (TrialState.FAILED, True, "fold 0 failed: it broke"),
        (TrialState.COMPLETED, False, "fold 0 completed: it has no"),
    ],
)
def test_no_ensemble_is_made_of_a_fold_that_failed(tmp_path, state, has_model, words):
    """Not even where it has the checkpoint of an epoch."""
    trials = [trial_of(0, [0.2], state, tmp_path if has_model else None), trial_of(1, [0.4], model=tmp_path)]
    with pytest.raises(MisError, match=f"{words}.*tries this one again"):
        _check_all_trained(SimpleNamespace(trials=trials))


def test_a_fold_that_diverged_is_told(tmp_path, capsys):
    _check_all_trained(SimpleNamespace(trials=[trial_of(0, [0.2], TrialState.DIVERGED, tmp_path)]))
    assert "fold 0 diverged" in capsys.readouterr().err


def test_a_fold_that_failed_is_tried_again_and_no_other_one(params, tmp_path):
    study = as_study(params.override({"train.folds": 3}))
    store = StudyStore.create(tmp_path / "folds", study, folds=True)
    begun = [store.next_trial() for _ in range(3)]
    history = [{"val/dice": 0.5, "model/parameters": 7, "time/total_s": 1.0}]
    for trial, state in zip(begun, (TrialState.COMPLETED, TrialState.FAILED, TrialState.FAILED), strict=True):
        store.end(replace(trial.with_history(history if trial.number < 2 else []), state=state))
        store.set_recorded(trial.number)
    assert not store.interrupted()
    # In another process, and twice, as where it is killed in between.
    for _ in range(2):
        store = StudyStore.open(tmp_path / "folds")
        assert store.has_folds
        store.try_failed_again()
        assert [(trial.number, trial.values) for trial in store.interrupted()] == [
            (trial.number, trial.values) for trial in begun[1:]
        ]
        assert [trial.number for trial in store.trials()] == [0]
        assert [store.is_recorded(number) for number in range(3)] == [True, False, False]
    for trial in store.interrupted():
        store.end(replace(trial.with_history(history), state=TrialState.COMPLETED))
    assert not store.interrupted()
    assert [trial.state for trial in store.trials()] == [TrialState.COMPLETED] * 3
    assert store.try_failed_again() == []


def test_folds_of_this_code_go_on_before_newer_ones_of_another(params, tmp_path, monkeypatch, capsys):
    """As on a branch that one comes back to."""
    records, settings = SimpleNamespace(digest="r"), Settings(root=tmp_path, workspace=tmp_path, tracking_uri="")
    study = as_study(params.override({"train.folds": 3}))

    def begin(letter, seconds):
        monkeypatch.setattr("mis.tune.folds.code_version", lambda _: {"commit": letter * 40, "digest": letter * 16})
        store = _find_or_create(tmp_path, "folds-x", study, records, settings)
        os.utime(store.path / "study.json", (seconds, seconds))
        return store.name

    first = begin("a", 1)
    second = begin("b", 2)
    assert second != first
    assert (
        f"the folds in {first} were begun by other code (commit {'a' * 40}, now {'b' * 40})" in capsys.readouterr().err
    )
    assert begin("a", 3) == first
    assert begin("b", 4) == second
    assert capsys.readouterr().err == ""
    (tmp_path / first / "study.json").write_text("")
    assert begin("b", 5) == second
    assert f"study {first} is passed over: " in capsys.readouterr().err


def test_the_same_trainings_are_known_by_what_they_are_made_of(params, records):
    folds = params.override({"train.folds": 3})
    same = [
        {"train.fold": 2}, {"evaluate.pictures": 0}, {"predict.mirror": True}, {"tune.max_failures": 5},
        {"distribute.heartbeat_s": 99}, {"scaling.devices": [1]},
    ]  # fmt: skip
    assert {_fingerprint(folds.override(values), records) for values in same} == {_fingerprint(folds, records)}
    others = [{"train.learning_rate": 1e-3}, {"model.base_filters": 12}, {"train.folds": 4}]
    assert len({_fingerprint(folds.override(values), records) for values in [*others, {}]}) == 4


@pytest.mark.parametrize("env", [{"TF_CONFIG": "{}"}, {"SLURM_STEP_NUM_TASKS": "2"}])
def test_one_process_trains_all_folds(env):
    with pytest.raises(MisError, match="by one process, .* got " + next(iter(env))):
        _check_started_alone(env)
    _check_started_alone({"SLURM_STEP_NUM_TASKS": "1"})


def test_a_search_over_the_number_of_folds_is_refused(params):
    space = {"train.folds": {"type": "choice", "values": [3, 5]}}
    with pytest.raises(MisError, match="validated on the same cases"):
        params.override({"tune.space": space})
