import math
import shutil

import pytest

from mis.errors import MisError
from mis.report.results import read_results

FILES = [
    *(f"{stage}/measured_on.json" for stage in ("train", "tune", "evaluate", "scaling")),
    *("train/history.csv", "tune/trials.csv", "tune/history.csv", "evaluate/metrics.json", "evaluate/cases.csv"),
    "scaling/comparison.json",
]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_its_stage(run, name):
    path = run.write() / name
    path.unlink()
    with pytest.raises(MisError) as caught:
        read_results(run.folder)
    assert str(path) in str(caught.value)
    assert f"dvc repro {name.split('/')[0]}`" in str(caught.value)


def test_missing_volumes_are_named_too(run):
    folder = run.write() / "evaluate" / "volumes"
    for path in folder.iterdir():
        shutil.rmtree(path)
    assert read_results(run.folder).evaluation.sheets == []
    folder.rmdir()
    with pytest.raises(MisError, match=r"volumes.*dvc repro evaluate"):
        read_results(run.folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train/history.csv", "epoch,val/dice\n1,half\n", "val/dice must be a number, got 'half'"),
        ("train/history.csv", "epoch,loss\n1,0.5\n", "no column val/dice"),
        (
            "tune/trials.csv",
            "trial,state,elapsed_s\n000,ended,1\n",
            "state must be one of running, interrupted, completed",
        ),
        ("tune/measured_on.json", "{", "damaged"),
        ("tune/measured_on.json", "[]", "must hold an object"),
        ("evaluate/metrics.json", "{}", "no model"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(run, name, content, said):
    path = run.write() / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(MisError) as caught:
        read_results(run.folder)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_trials_have_their_own_epochs(run):
    results = read_results(run.write())
    assert {trial.name: [epoch["val/dice"] for epoch in trial.history] for trial in results.trials} == {
        "000": [0.1, 0.3],
        "001": [0.2, 0.4],
        "002": [0.05],
    }
    assert results.trials[0].values == {"train.learning_rate": 0.001, "model.norm": "batch"}


def test_the_earliest_of_equals_is_the_best_trial(run):
    run.trials = [run.trial(name, "completed", [dice], 1e-3, "batch") for name, dice in (("000", 0.2), ("001", 0.2))]
    assert read_results(run.write()).best_trial.name == "000"


def test_no_trial_is_the_best_where_none_has_a_score(run):
    run.trials = [
        run.trial("000", "failed", [], 1e-3, "batch", error="no memory"),
        run.trial("001", "completed", [math.nan], 1e-3, "batch"),
    ]
    results = read_results(run.write())
    assert results.best_trial is None
    assert results.trials[0].epochs == 0


def test_a_case_without_a_dice_comes_last(run):
    run.cases = [run.case("A", 0.8, 0.3), run.case("B", float("nan"), 0.3), run.case("C", 0.2, 0.3)]
    run.pictures = ["A", "B", "C"]
    assert [path.name for path in read_results(run.write()).evaluation.volumes] == ["C", "A", "B"]


def test_a_missing_sheet_is_named(run):
    (run.write() / "evaluate" / "sheets" / "BRATS_003.png").unlink()
    with pytest.raises(MisError, match=r"BRATS_003.png.*dvc repro evaluate"):
        read_results(run.folder)


def test_cases_are_shown_from_the_worst_to_the_best(run):
    run.pictures = ["BRATS_003", "BRATS_011"]
    evaluation = read_results(run.write()).evaluation
    assert [path.stem for path in evaluation.sheets] == ["BRATS_011", "BRATS_003"]
    assert [path.name for path in evaluation.volumes] == ["BRATS_011", "BRATS_003"]


def test_every_cell_has_its_trials(run):
    cells = read_results(run.write()).scaling.cells
    assert [(one.cell.mode, one.cell.devices, one.cell.round) for one in cells] == run.cells
    assert all([timed.trial for timed in one.trials] == [0, 1, 2, 3] for one in cells)


def test_a_comparison_without_its_reference_is_damaged(make_run):
    run = make_run(devices=[2])
    with pytest.raises(MisError, match=r"comparison\.json is damaged: no cell has one device"):
        read_results(run.write())
