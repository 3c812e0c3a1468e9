"""`python -m mis.scaling measure` as a user types it, on a real Ray cluster."""

import json
import os
import signal
import time

import pytest

from mis.scaling.__main__ import main
from mis.scaling.plan import MODE_NAMES
from mis.track.base import SCALING
from mis.track.names import COLD_S, DEVICE_HOURS, ELAPSED_S, KIND_TAG, MODE_TAG, PARENT_RUN_TAG, SPEEDUP, WORKERS_LOST
from tests.ray_nodes import TwoNodes
from tests.searches import OURS, tracker_of

MODES = ("data", "experiment")
"""All four of them are compared in tests/test_pipeline.py."""

SETS = {
    "model.depth": 1,
    "model.base_filters": 4,
    "model.norm": "none",
    "train.batch_size": 2,
    "scaling.devices": [1, 2],
    "scaling.modes": list(MODES),
    "scaling.epochs": 1,
    "scaling.rounds": 1,
    "scaling.trials": [{"train.learning_rate": 1e-3}, {"train.learning_rate": 2e-3}],
}


@pytest.fixture
def measure(warm, project):
    """Start `python -m mis.scaling measure` in a project's folder."""

    def start(*arguments, env=None, **sets):
        values = {**SETS, **{name.replace("__", "."): value for name, value in sets.items()}}
        own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        options = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
        return warm.start("measure", *options, *arguments, module="mis.scaling", cwd=project, env=own | (env or {}))

    return start


def runs_of(project):
    tracker = tracker_of(project)
    runs = tracker.client.search_runs([tracker.experiment_id(SCALING)])
    kinds = {kind: [run for run in runs if run.data.tags.get(KIND_TAG) == kind] for kind in ("comparison", "cell")}
    return tracker, kinds["comparison"], kinds["cell"]


def wait_for_a_cell(process, project):
    """Return the file of the first cell that has ended."""
    while not (ended := list(project.glob("checkpoints/scaling-*/*.json"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return ended[0]


@pytest.mark.slow
def test_a_comparison_that_was_killed_goes_on_with_the_cells_that_are_missing(measure, project):
    process = measure()
    ended = wait_for_a_cell(process, project)
    process.kill()
    before = json.loads(ended.read_text())

    process = measure("--json", project / "figures.json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert not list(project.glob("checkpoints/scaling-*/")), "what is in MLflow is not kept twice"

    figures = json.loads((project / "figures.json").read_text())
    assert len(figures["cells"]) == 3
    cell = before["cell"]
    (kept,) = (row for row in figures["cells"] if (row["mode"], row["devices"]) == (cell["mode"], cell["devices"]))
    assert kept["elapsed_s"] == max(trial["end_s"] for trial in before["trials"]), "it was not measured again"
    assert {row["mode"] for row in figures["speedups"]} == set(MODES)
    assert len(figures["runs"]) == 3

    tracker, modes, cells = runs_of(project)
    assert {run.data.tags[MODE_TAG] for run in modes} == set(MODES)
    assert {run.info.status for run in modes} == {"FINISHED"}
    parents = {run.info.run_id for run in modes}
    assert all(run.data.tags[PARENT_RUN_TAG] in parents for run in cells)
    assert len(cells) == 3
    for run in cells:
        assert {ELAPSED_S, COLD_S, DEVICE_HOURS, SPEEDUP, WORKERS_LOST} <= run.data.metrics.keys()
        assert [file.path for file in tracker.client.list_artifacts(run.info.run_id, "figures")] == [
            "figures/timeline.png"
        ]
    for run in modes:
        steps = [point.step for point in tracker.client.get_metric_history(run.info.run_id, SPEEDUP)]
        assert steps == [1, 2]
        assert len(tracker.client.list_artifacts(run.info.run_id, "figures")) == 3
    assert "experiment" in out


@pytest.mark.slow
def test_a_comparison_that_is_told_to_end_says_so_in_mlflow(measure, project):
    process = measure(scaling__modes=[*MODE_NAMES])
    wait_for_a_cell(process, project)
    while not any(run.info.status == "FINISHED" for run in runs_of(project)[2]):  # nothing writes to MLflow then
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "Traceback" not in err
    assert "starting it again" not in err
    assert "existing Ray cluster" not in err, "a thread that goes on would look for another one"
    assert "the same command goes on" in err
    _, modes, _ = runs_of(project)
    assert {run.info.status for run in modes} == {"KILLED"}
    assert list(project.glob("checkpoints/scaling-*/*.json")), "the next session needs it"


@pytest.mark.slow
def test_a_cell_with_more_devices_than_a_node_has_is_trained_over_several_nodes(measure, project):
    with TwoNodes(cores=1) as cluster:
        process = measure("--json", project / "figures.json", env=cluster.env, scaling__modes=["data", "elastic"])
        _, err = process.communicate()
    assert process.returncode == 0, err
    figures = json.loads((project / "figures.json").read_text())
    assert {(row["mode"], row["nodes"]) for row in figures["cells"]} == {
        ("data", "1+0"),
        ("data", "1+1"),
        ("elastic", "1+1"),
    }
    dice = {}
    for row in figures["trials"]:
        dice.setdefault(row["trial"], []).append(row["dice"])
    assert {row["trial_devices"] for row in figures["trials"] if (row["mode"], row["devices"]) == ("data", 2)} == {2}
    assert all(max(scores) - min(scores) < 1e-4 for scores in dice.values())


@pytest.mark.slow
@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        (
            {"scaling.devices": [1, 99], "scaling.modes": ["experiment"], "scaling.trials": [{}] * 99},
            ("scaling.devices must be at most", "got 99"),
        ),
        ({"scaling.trials": [{}]}, ("at least as many as the 2 devices", "got 1")),
        ({"train.batch_size": 3}, ("scaling.trials[0]: train.batch_size must be a multiple", "= 2, got 3")),
        (
            {"distribute.batch_rule": "per_replica_batch", "scaling.modes": ["data", "elastic"]},
            ("may have elastic with", "got per_replica_batch"),
        ),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_with_its_reason(project, monkeypatch, capsys, sets, parts):
    monkeypatch.chdir(project)
    for name in ("MIS_ROOT", "DVC_ROOT", "MLFLOW_TRACKING_URI", "MIS_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    options = [part for name, value in {**SETS, **sets}.items() for part in ("--set", f"{name}={value}")]
    assert main(["measure", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts), line
