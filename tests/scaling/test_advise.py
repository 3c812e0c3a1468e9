"""`python -m mis.scaling recommend` as a user types it."""

import json

import pytest

from mis.params.load import load_params
from mis.scaling.__main__ import main
from mis.scaling.calibrate import calibration, calibration_sizes
from mis.track.base import TUNE
from mis.track.names import RECORDS_TAG, STATE_TAG, STUDY_TAG, TRIAL_TAG
from tests.conftest import ROOT
from tests.searches import tracker_of

COSTS = """
name: mine
devices_per_node: 4
costs:
  sample_s: {value: 0.5, source: measured, note: here}
  waiting_share: 0.05
"""


@pytest.fixture
def recommend(project, monkeypatch, capsys):
    """Call the command in a project with the tiny records; return its exit code and what it printed."""
    monkeypatch.chdir(project)
    for name in ("MIS_ROOT", "DVC_ROOT", "MLFLOW_TRACKING_URI", "MIS_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    (project / "mine.yaml").write_text(COSTS)

    def call(*arguments, command="recommend"):
        code = main([command, *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def add_trial(project, records, number, devices, epoch_s):
    """Record a trial as a search does."""
    params = load_params(project / "params.yaml")
    run = tracker_of(project).start_run(
        TUNE,
        f"trial-{number:03d}",
        params={**params.flatten(), "in_force.global_batch_size": 2, "train.epochs": 8},
        tags={STUDY_TAG: "before", TRIAL_TAG: f"{number:03d}", RECORDS_TAG: records.digest, STATE_TAG: "completed"},
    )
    times = {"time/epoch_s": epoch_s, "time/total_s": 8 * epoch_s, "time/trial_s": 8 * epoch_s + 5}
    shares = {"time/input_share": 0.0, "time/communication_share": 0.0, "time/devices": float(devices)}
    run.log_metrics({**times, **shares, "time/step_s": (epoch_s - 1) / 3, "model/parameters": 100.0}, 8)
    run.finish()


def test_from_a_users_own_runs(recommend, project, records):
    """An epoch of 6 cases takes 4 s on one device and 3 s on two: 3 steps, and 1 s of validation."""
    add_trial(project, records, 0, 1, 4.0)
    add_trial(project, records, 1, 2, 3.0)
    code, out, err = recommend("--devices", 2, "--trials", 8, "--hours", 1, "--json", project / "advice.json")
    assert code == 0, err
    assert "the costs: fitted to 2 runs in MLflow" in out
    assert "residuals of the fit: 0.0% in the median, 0.0% at most" in out
    assert "not told by these runs, and assumed: step_s (" in out
    told = json.loads((project / "advice.json").read_text())
    modes = {row["mode"]: row for row in told["modes"]}
    assert modes["experiment"]["elapsed_s"] == pytest.approx(8 / 2 * (8 * 4 + 5))
    assert modes["data"]["elapsed_s"] == pytest.approx(8 * (8 * 3 + 5))
    assert modes["experiment"]["trials_in_time"] == 2 * (3600 // 37)
    assert told["modes"][0]["mode"] in ("experiment", "elastic")
    assert told["reason"] in out
    assert [round(row["error"], 6) for row in told["residuals"]] == [0, 0]
    assert f"set: {told['modes'][0]['set']} tune.num_samples=8" in out


def test_the_simulation_takes_a_users_own_runs(recommend, project, records):
    add_trial(project, records, 0, 1, 4.0)
    add_trial(project, records, 1, 2, 3.0)
    told = ["--own-runs", "--devices", "1,2", "--batch-size", 2, "--trials", 4, "--epochs", 8, "--spread", 0]
    code, out, err = recommend(*told, "--json", project / "curves.json", command="simulate")
    assert code == 0, err
    assert "residuals of the fit: 0.0% in the median" in out
    (rows,) = json.loads((project / "curves.json").read_text()).values()
    reached = {(row["mode"], row["devices"]): row["elapsed_s"] for row in rows}
    assert reached["data", 2] == pytest.approx(4 * (8 * 3 + 5))
    assert reached["experiment", 1] == pytest.approx(4 * (8 * 4 + 5))


def test_the_simulation_of_own_runs_without_runs_is_refused(recommend):
    code, _, err = recommend("--own-runs", "--devices", "1,2", command="simulate")
    assert (code, err.count("\n")) == (2, 1)
    assert "got none; add --calibrate" in err


def test_with_hours_alone_as_many_trials_are_set_as_end_in_time(recommend, project, records):
    add_trial(project, records, 0, 1, 4.0)
    add_trial(project, records, 1, 2, 3.0)
    code, out, err = recommend("--devices", 2, "--hours", 1, "--spread", 0, "--json", project / "advice.json")
    assert code == 0, err
    told = json.loads((project / "advice.json").read_text())
    most = max(row["trials_in_time"] for row in told["modes"])
    assert told["trials"] == most == told["modes"][0]["trials_in_time"]
    assert told["modes"][0]["elapsed_s"] <= 3600
    assert f"tune.num_samples={most}" in out
    assert "batches of 2 (train.batch_size), which can be spread over 2 devices" in out


def test_from_a_file_of_another_cluster(recommend):
    code, out, err = recommend(
        "--devices", 8, "--trials", 8, "--costs", "mine.yaml", "--cases", 64, "--set", "train.batch_size=8"
    )
    assert code == 0, err
    assert "the costs: mine" in out
    assert "elastic: " in out
    assert "residuals" not in out


def test_without_runs_it_says_what_to_measure(recommend):
    code, out, err = recommend("--devices", 2)
    assert (code, out) == (2, "")
    assert "got none; add --calibrate, which runs 2 trials of 3 epochs on one device and on several" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", 0], "--devices must be at least 1, got 0"),
        (["--devices", 2, "--trials", 0, "--costs", "mine.yaml"], "--trials must be at least 1, got 0"),
        (["--devices", 2, "--hours", -1, "--costs", "mine.yaml"], "--hours must be more than 0, got -1"),
        (["--devices", 2, "--spread", -1], "--spread must be at least 0, got -1"),
        (["--devices", 2, "--devices-per-node", 0], "--devices-per-node must be at least 1, got 0"),
        (["--devices", 2, "--cases", 3], "--cases goes with --costs"),
        (["--devices", 2, "--costs", "mine.yaml", "--cases", 0], "--cases must be at least 1"),
        (["--devices", 2, "--costs", "none.yaml"], "none.yaml must be a readable YAML or JSON file"),
        (["--devices", 2, "--set", "train.batch=3"], "train.batch"),
    ],
)
def test_bad_input_is_one_line(recommend, arguments, message):
    code, out, err = recommend(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_calibration_is_a_search_that_params_yaml_allows(params):
    assert calibration_sizes(2, available=8) == [1, 2]
    assert calibration_sizes(3, available=8) == [1]
    arguments = calibration(params, 2, "calibration-2")
    assert arguments[:4] == ["-m", "mis.tune", "--name", "calibration-2"]
    values = dict(text.split("=", 1) for text in arguments[5::2])
    assert values["tune.devices_per_trial"] == "2"
    changed = load_params(ROOT / "pipelines" / "plain.yaml", [f"{name}={value}" for name, value in values.items()])
    assert (changed.tune.devices, changed.tune.epochs, changed.tune.num_samples) == (2, 3, 2)
    assert changed.tune.hours is None
    assert changed.tune.scheduler.name == "none"
