"""The evaluation of the pipeline on records that are not as they were written."""

import json
import re
import shutil
from dataclasses import replace

import keras
import pytest

from mis.errors import MisError
from mis.evaluate.__main__ import main
from mis.evaluate.compare import compare_runs
from mis.evaluate.session import CASES, SCORES, evaluate
from mis.files import write_csv
from mis.model.card import ModelCard, add_card, read_card
from mis.predict.source import find_model, find_models
from mis.settings import load_settings
from mis.track.base import EVALUATE, tracked
from mis.track.mlflow import MlflowTracker, existing_store
from tests.conftest import PARAMS


@pytest.fixture
def model(tmp_path, records, params):
    """The file of a model with the three regions' channels."""
    image = keras.Input((None, None, None, 4))
    keras.Model(image, keras.layers.Conv3D(3, 1, activation="sigmoid")(image)).save(tmp_path / "model.keras")
    add_card(tmp_path / "model.keras", ModelCard.of(records, params.model, params.train))
    return tmp_path / "model.keras"


@pytest.fixture
def settings(tmp_path, params, tiny_root, records):
    """The settings of a project with the tiny data set and its records."""
    root = tmp_path / params.data.root
    root.parent.mkdir(parents=True)
    root.symlink_to(tiny_root)
    return replace(load_settings({}, tmp_path), records_folder=records.folder)


def test_the_test_cases_are_scored_and_recorded(settings, records, params, model, tmp_path):
    results = tmp_path / "results"
    scores = evaluate({"train": (model, 0.5), "tune": (tmp_path / "none", 0.4)}, params, settings, results)
    assert [case.case for case in scores.cases] == list(records.split.test)
    summary = scores.summary()
    assert {"dice", "dice_wt", "hd95_mm_et", "sensitivity_tc", "lesion_dice_wt", "lesions_false_et"} <= set(summary)
    assert (scores.model, summary["cases"]) == ("train", 1)
    tracker = MlflowTracker(settings)
    (run,) = tracker._search(EVALUATE, [])
    assert run.data.metrics["test/hd95_mm_wt"] == pytest.approx(summary["hd95_mm_wt"])
    assert json.loads((results / "metrics.json").read_text())["hd95_mm_wt"] == pytest.approx(summary["hd95_mm_wt"])
    table = tracker.fetch_file(run.info.run_id, f"{SCORES}/{CASES}", tmp_path)
    assert table.read_text() == (results / CASES).read_text()
    assert [path.name for path in (results / "sheets").iterdir()] == [f"{records.split.test[0]}.png"]
    assert tracker.fetch_file(run.info.run_id, f"sheets/{records.split.test[0]}.png", tmp_path) is not None
    assert [path.name for path in (results / "volumes").iterdir()] == [records.split.test[0]]
    assert table.read_text().splitlines()[1].startswith(f"{records.split.test[0]},")
    # It is registered, and predicts from there.
    version = tracker.find_model("mis", "champion")
    assert (version.version, version.run_id) == ("1", run.info.run_id)
    assert read_card(find_model("models:/mis@champion", tmp_path, lambda: tracker)).records == records.digest
    with pytest.raises(MisError, match="registered in"):
        find_model("models:/mis/7", tmp_path, lambda: tracker)
    # The same rule twice says the same; another run of it is compared with the first.
    evaluate({"train": (model, 0.5)}, params, settings, results)
    runs = [run.info.run_id for run in tracker._search(EVALUATE, [])]
    lines = compare_runs(tracker, *runs)
    assert [line.score for line in lines][:2] == ["dice", "dice_wt"]
    assert all(line.test.p == 1 and line.test.effect.mean == 0 for line in lines)
    # A distance that is longer is worse, and so is an error of the volume of either sign.
    kept = {"dice": "0.5", "hd95_mm_wt": "2", "volume_error_ml_wt": "-1"}
    ids = []
    for values in (kept, {"dice": "0.6", "hd95_mm_wt": "3", "volume_error_ml_wt": "1.5"}):
        with tracked(tracker.start_run(EVALUATE, "made", params={"evaluate.convention": "brats2023"})) as made:
            write_csv(tmp_path / CASES, [{"case": "one", **values}])
            made.log_file(tmp_path / CASES, SCORES)
        ids.append(made.id)
    by_score = {line.score: line for line in compare_runs(tracker, *ids)}
    assert [(line.test.better, line.test.worse) for line in by_score.values()] == [(1, 0), (0, 1), (0, 1)]
    assert by_score["volume_error_ml_wt"].first == 1
    # By another convention the figures are others, and do not compare.
    other = params.override({"evaluate.convention": "panoptica"})
    evaluate({"train": (model, 0.5)}, other, settings, results)
    newest = next(iter(tracker._search(EVALUATE, []))).info.run_id
    with pytest.raises(MisError, match="by the same convention"):
        compare_runs(tracker, runs[0], newest)


def test_where_the_server_is_away_the_results_are_kept_if_that_is_wanted(settings, params, model, tmp_path, capsys):
    models, results = {"train": (model, 0.5)}, tmp_path / "results"
    away = replace(settings, tracking_uri="http://127.0.0.1:9")
    with pytest.raises(MisError, match="must name a server that answers"):
        evaluate(models, params, away, results)
    shutil.rmtree(results)
    scores = evaluate(models, params, replace(away, offline=True), results)
    assert json.loads((results / "metrics.json").read_text())["dice"] == pytest.approx(scores.summary()["dice"])
    assert "which MIS_OFFLINE=1 does without" in capsys.readouterr().out


def test_runs_without_scores_are_not_compared(settings):
    tracker = MlflowTracker(settings)
    run = tracker.start_run(EVALUATE, "bare")
    for other, words in ((run.id, "must have the scores of its cases"), ("0" * 32, "must be that of a run")):
        with pytest.raises(MisError, match=words):
            compare_runs(tracker, other, run.id)


def test_a_test_case_whose_record_is_damaged_is_told_in_one_line(settings, records, params, model, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    path = folder / f"{records.split.test[0]}.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    settings = replace(settings, records_folder=folder)
    results = tmp_path / "results"
    with pytest.raises(MisError, match="must be as they were written") as error:
        evaluate({"train": (model, 0.5)}, params, settings, results)
    assert "\n" not in str(error.value)
    assert not (results / "sheets").exists()
    assert not (results / CASES).exists()


def test_any_model_is_scored_and_compared_from_the_command_line(
    settings, tmp_path, records, model, monkeypatch, capsys
):
    """Nothing is registered by it, and an ensemble is scored as one model is."""
    (tmp_path / "data" / "records").symlink_to(records.folder)
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    monkeypatch.chdir(tmp_path)
    ids = []
    for models in ([model], [model, model]):
        assert main(["score", *(part for path in models for part in ("--model", str(path)))]) == 0
        out = capsys.readouterr().out
        assert out.startswith("dice         WT ")
        assert "lesion_dice  WT " in out
        assert "1 test cases; their scores and sheets: run " in out
        ids.append(re.search(r"run ([0-9a-f]{32})", out)[1])
    assert main(["compare", *ids]) == 0
    assert "+0.0000" in capsys.readouterr().out
    tracker = MlflowTracker(settings)
    assert tracker.find_model("mis", "champion") is None
    assert tracker.fetch_file(ids[0], f"sheets/{records.split.test[0]}.png", tmp_path) is not None
    assert main(["score", "--model", "none.keras"]) == 2
    assert "--model must be a model's file" in capsys.readouterr().err


def test_a_model_of_a_run_is_looked_for_in_a_store_that_is_there(tmp_path):
    for name in ("models:/mis@champion", "0" * 32):
        with pytest.raises(MisError, match="there must be a store of MLflow to read from, got none at"):
            find_models([name], None, tmp_path, lambda: existing_store(load_settings({}, tmp_path)))
    assert not (tmp_path / "mlruns").exists()
