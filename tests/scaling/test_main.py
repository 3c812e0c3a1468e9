"""`python -m mis.scaling simulate` as a user types it, without devices."""

import json

import pytest

from mis.scaling.__main__ import main
from mis.track.base import SCALING
from mis.track.names import KIND_TAG, MODE_TAG, SPEEDUP
from tests.searches import tracker_of

RUN = {
    "mode": "elastic",
    "devices": 2,
    "hybrid": 1,
    "nodes": [2],
    "trials": [10.0, 30.0],
    "epochs": 10,
    "batch_size": 8,
    "speeds": {"2": 2.0},
    "restart_s": 2.0,
    "elapsed_s": 20.0,
    "something_else": 1,
}


@pytest.fixture
def simulate(tmp_path, monkeypatch, capsys):
    """Call `python -m mis.scaling simulate` in a project's folder; return its exit code and what it printed."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIS_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*arguments):
        code = main(["simulate", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_the_curves_are_in_mlflow_and_in_a_file(simulate, tmp_path):
    code, out, err = simulate("--devices", "1,...,8", "--trials", "8", "--epochs", "3", "--json", tmp_path / "x.json")
    assert code == 0, err
    assert "the paper's cluster, with our records" in out
    (rows,) = json.loads((tmp_path / "x.json").read_text()).values()
    assert [row["devices"] for row in rows if row["mode"] == "elastic"] == [1, 2, 4, 8]
    tracker = tracker_of(tmp_path)
    runs = tracker.client.search_runs([tracker.experiment_id(SCALING)])
    assert {run.data.tags[MODE_TAG] for run in runs} == {"data", "experiment", "hybrid", "elastic"}
    for run in runs:
        assert run.data.tags[KIND_TAG] == "simulated"
        curve = tracker.client.get_metric_history(run.info.run_id, SPEEDUP)
        simulated = {row["devices"]: row["speedup"] for row in rows if row["mode"] == run.data.tags[MODE_TAG]}
        assert {point.step: point.value for point in curve} == pytest.approx(simulated)
        assert [file.path for file in tracker.client.list_artifacts(run.info.run_id, "figures")] == [
            "figures/speedup.png"
        ]


def test_a_cost_set_of_another_cluster(simulate, tmp_path):
    (tmp_path / "mine.yaml").write_text("{name: mine, devices_per_node: 2, costs: {sample_s: 1}}")
    code, out, _ = simulate("--costs", tmp_path / "mine.yaml", "--devices", "2", "--spread", "0", "--trials", "4")
    assert code == 0
    assert "mine.yaml" in out


def test_the_simulator_against_a_run(simulate, tmp_path):
    (tmp_path / "runs.json").write_text(json.dumps({"runs": [RUN]}))
    code, _, err = simulate("--against", tmp_path / "runs.json", "--json", tmp_path / "x.json")
    assert code == 0, err
    ((row,),) = json.loads((tmp_path / "x.json").read_text()).values()
    assert row["simulated_s"] == pytest.approx(12 + 2 + 18 / 2)
    assert row["error"] == pytest.approx(23 / 20 - 1)


def test_the_paper_and_the_published_tables(simulate):
    code, out, _ = simulate("--paper")
    assert code == 0
    assert "shared_bytes_per_s" in out
    assert "with early stopping (ASHA)" in out
    code, out, _ = simulate("--published")
    assert code == 0
    assert "A100 TF32" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "4,2"], "--devices takes rising numbers"),
        (["--devices", "1,2,4", "--trials", "3"], "at least as many trials as there are devices, 4, got 3"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--spread", "-1"], "--spread must be at least 0, got -1"),
        (["--costs", "none.yaml"], "none.yaml must be a readable YAML or JSON file"),
        (
            ["--against", "none.json"],
            "--against takes a file that `python -m mis.scaling measure`, benchmarks/modes.py or",
        ),
    ],
)
def test_bad_input_is_one_line(simulate, arguments, message):
    code, out, err = simulate(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_file_of_other_content_is_refused(simulate, tmp_path):
    (tmp_path / "runs.json").write_text(json.dumps({"runs": [{**RUN, "elapsed_s": -1}]}))
    code, _, err = simulate("--against", tmp_path / "runs.json")
    assert code == 2
    assert err.count("\n") == 1
