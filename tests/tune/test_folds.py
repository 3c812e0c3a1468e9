"""`train.folds` as a user sets it: a model for each fold, their scores, the ensemble, and what a kill leaves."""

import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from mis.data.records.reader import read_records
from mis.errors import MisError
from mis.evaluate.folds import score_folds
from mis.evaluate.session import evaluate
from mis.model.card import read_card
from mis.predict.model import load_segmenter
from mis.settings import Settings
from mis.tune.folds import Folds, as_study
from mis.tune.resume import resume
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

    out, err = begin(warm, folds_project).communicate(timeout=300)
    assert "of 3 trials have ended" in err
    assert [line.split(":")[0] for line in out.splitlines()[:3]] == ["fold 0", "fold 1", "fold 2"]
    assert list(tune.iterdir()) == [study]
    assert not list(study.glob("trials/*/epoch-*"))

    # One parent run with three children, the scores and the ensemble.
    tracker = tracker_of(folds_project)
    children, parent = recorded(folds_project)
    assert sorted(run.data.params["train.fold"] for run in children) == ["0", "1", "2"]
    ensemble = tracker.fetch_file(parent.info.run_id, "model/best.keras", tmp_path)
    assert read_card(ensemble).validated_on == "fold 0 of 3"
    with tracker.fetch_file(parent.info.run_id, "scores/folds.csv", tmp_path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    records = read_records(folds_project / "data" / "records")
    assert sorted(row["case"] for row in rows) == sorted((*records.split.train, *records.split.val))
    for row in rows:
        assert row["case"] in records.of_fold(3, int(row["fold"])).split.val
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


def trial_of(fold, dices):
    history = [{"val/dice": dice, "val/loss": 1 - dice, "model/parameters": 7, "time/total_s": 1.0} for dice in dices]
    trial = Trial(2 - fold, {"train.fold": fold}, TrialState.COMPLETED, best_model=None)
    return trial.with_history(history)


def test_figures_of_folds_are_means_over_cases(tmp_path):
    trials = [trial_of(0, [0.2, 0.5]), trial_of(1, [0.4, 0.8, 0.6])]
    store = SimpleNamespace(path=tmp_path)
    study = SimpleNamespace(trials=trials[::-1], elapsed_s=12.0, name="folds", store=store)
    folds = Folds(study, compared=1, sizes=[3, 1])
    summary = folds.summary()
    assert summary["dice"] == pytest.approx((3 * 0.5 + 0.8) / 4)
    assert summary["fold_dice"] == 0.8
    assert (summary["epochs"], summary["parameters"], summary["elapsed_s"]) == (5, 14, 12.0)
    assert [epoch["val/dice"] for epoch in folds.history] == pytest.approx([0.3, 0.65, 0.6])
    with pytest.raises(MisError, match=r"every fold must have a model, got none of fold 0: completed"):
        folds.write_model(tmp_path / "ensemble.keras")
