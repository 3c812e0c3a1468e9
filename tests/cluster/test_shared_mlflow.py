"""One MLflow for all: PostgreSQL, passwords and TLS, and eight searches at once."""

import json
import sys
import time

import pytest

from mis.settings import Settings
from mis.track.base import TUNE
from mis.track.mlflow import MlflowTracker
from tests.cluster.conftest import Project, sets
from tests.cluster.postgres import shared_mlflow
from tests.conftest import ROOT
from tests.tune.study.test_decisions import SPACE
from tests.warm import warm_server

pytestmark = pytest.mark.slow

SEARCHES, TRIALS, EPOCHS = 8, 2, 3


SEARCH = """
import json
import sys
import time

sys.path.insert(0, {root!r})
from mis.params.load import load_params
from mis.settings import load_settings
from mis.track.recording import open_tracker
from tests.tune.study.test_decisions import search

settings = load_settings()
params = load_params(settings.workspace / "params.yaml", sys.argv[2:])
with open_tracker(settings) as tracker:
    (settings.root / "ready").touch()
    while not (settings.root.parent / "go").exists():
        time.sleep(0.05)
    search(settings.checkpoints / "tune" / sys.argv[1], params, devices=2, tracker=tracker)
"""
"""A search whose trials have known curves, without Ray: what it records goes the way of every search."""


def test_eight_searches_at_once_are_recorded_by_one_server(machines, records, tmp_path, monkeypatch):
    values = {
        "tune.num_samples": TRIALS,
        "tune.epochs": EPOCHS,
        "tune.space": SPACE,
        "tune.scheduler.name": "none",
        "train.patience": EPOCHS,
    }
    words = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    source = SEARCH.format(root=str(ROOT))
    projects = [Project(tmp_path / f"project-{number}", records.folder) for number in range(SEARCHES)]
    with shared_mlflow(tmp_path, machines.gateway) as access, warm_server("tests.tune.study.test_decisions") as warm:
        searches = []
        for number, project in enumerate(projects):  # they begin one by one, and all search at once
            searches.append(
                warm.start(f"study-{number}", *words, source=source, cwd=project.folder, env=project.env | access)
            )
            while not (project.folder / "ready").exists():
                assert searches[-1].poll() is None, searches[-1].communicate()
                time.sleep(0.05)
        (tmp_path / "go").touch()
        said = ["".join(search.communicate()) for search in searches]
        assert [search.returncode for search in searches] == [0] * SEARCHES, said
        for name, value in access.items():
            monkeypatch.setenv(name, value)
        client = MlflowTracker(Settings(tmp_path, tmp_path, access["MLFLOW_TRACKING_URI"])).client
        experiment = client.get_experiment_by_name(TUNE)
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        check_runs(client, runs)
        password = access["MLFLOW_TRACKING_PASSWORD"]
        assert not any(password in text for text in said)
        assert not any(password in str(run.to_dictionary()) for run in runs)
        files = [file for project in projects for file in project.folder.rglob("*") if file.is_file()]
        own = [file for file in files if file.suffix in (".json", ".jsonl", ".log", ".yaml", ".txt")]
        assert own
        assert not [file for file in own if password.encode() in file.read_bytes()]


def check_runs(client, runs):
    """Check that each study and each of its trials is there once, with every epoch once, and the study's model."""
    assert {run.info.status for run in runs} == {"FINISHED"}
    found = sorted((run.data.tags["mis.study"], run.data.tags.get("mis.trial", "")) for run in runs)
    assert found == [
        (f"study-{n}", trial) for n in range(SEARCHES) for trial in ("", *(f"{t:03d}" for t in range(TRIALS)))
    ]
    for run in runs:
        if "mis.trial" in run.data.tags:
            points = client.get_metric_history(run.info.run_id, "val/dice")
            assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))


def test_a_wrong_password_and_an_unknown_certificate_are_said_at_the_start(machines, project, tmp_path):
    with shared_mlflow(tmp_path, machines.gateway) as access:
        search = ["-m", "mis.tune", *sets()]
        for wrong, says in (
            ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, "MLFLOW_TRACKING_PASSWORD"),
            (
                {"MLFLOW_TRACKING_SERVER_CERT_PATH": ""},
                "name its file, or that of its authority, in MLFLOW_TRACKING_SERVER_CERT_PATH",
            ),
        ):
            env = {name: value for name, value in (access | wrong).items() if value}
            done = project.run(sys.executable, *search, env=env, check=False)
            assert done.returncode == 2
            assert says in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
