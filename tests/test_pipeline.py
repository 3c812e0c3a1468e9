"""The whole pipeline, small, in a copy of the repository: real DVC, Ray, TensorFlow and MLflow."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mis.data.records.reader import read_records
from mis.ports import free_port
from mis.scaling.plan import MODE_NAMES
from mis.settings import load_settings
from mis.track.base import EVALUATE, SCALING, TRAIN, TUNE
from mis.track.links import charts_url, comparison_links
from mis.track.mlflow import MlflowTracker
from mis.track.server import server, wait_until_ready
from tests import browser

pytestmark = [
    pytest.mark.slow,
]

ROOT = Path(__file__).parents[1]
SMALL = {
    "phantom.cases": 8,
    "phantom.unlabelled": 1,
    "phantom.shape": [16, 16, 16],
    "model.depth": 1,
    "model.base_filters": 4,
    "train.epochs": 3,
    "tune.num_samples": 3,
    "tune.epochs": 2,
    "evaluate.pictures": 1,
    "scaling.rounds": 1,
    "scaling.epochs": 1,
    "scaling.trials": [{"train.learning_rate": 1e-3}, {"train.learning_rate": 5e-3}],
}


class Project:
    """A copy of the repository in which commands run as a user's shell runs them."""

    def __init__(self, root: Path):
        self.root = root
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MIS_", "MLFLOW_", "DVC_"))}
        self.env = own | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def change(self, **values: object) -> None:
        path = self.root / "params.yaml"
        yaml = YAML()
        tree = yaml.load(path.read_text(encoding="utf-8"))
        for name, value in values.items():
            section, _, key = name.partition(".")
            tree[section][key] = value
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(tree, file)

    @contextmanager
    def changed(self, **values: object) -> Iterator[None]:
        path = self.root / "params.yaml"
        before = path.read_bytes()
        self.change(**values)
        try:
            yield
        finally:
            path.write_bytes(before)

    def stages_of(self, *command: str) -> set[str]:
        """Return the stages that a command of DVC runs."""
        lines = self.run(*command).stdout.splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    def settings(self):
        return load_settings(env={}, start=self.root)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("project")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("results/") and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    project = Project(root)
    project.change(**SMALL)
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "test")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "copy")
    project.run("dvc", "repro")
    yield project
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def tracker(project: Project) -> MlflowTracker:
    return MlflowTracker(project.settings())


def runs_of(tracker: MlflowTracker, experiment: str) -> list:
    return list(tracker.client.search_runs([tracker.experiment_id(experiment)]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_second_repro_does_nothing(project):
    assert "Data and pipelines are up to date" in project.run("dvc", "repro").stdout


CHANGED = {  # parameters of different sections, as DVC names those, with another value and the stage that takes them
    "phantom.seed": (8, "phantom"),
    "data.target": ("whole_tumor", "preprocess"),
    "train.epochs": (4, "train"),
    "tune.num_samples": (9, "tune"),
    "predict.threshold": (0.4, "evaluate"),
    "scaling.epochs": (2, "scaling"),
}


def changed_inputs(project):
    """Return, for each file or section of parameters that has changed since the last run, the stages that take it."""
    found = {}
    for stage, changes in json.loads(project.run("dvc", "status", "--json").stdout).items():
        for change in changes:
            assert change.keys() == {"changed deps"}
            for file, state in change["changed deps"].items():
                for name in state if file == "params.yaml" else [file]:
                    found.setdefault(name, set()).add(stage)
    return found


def test_a_parameter_concerns_its_stage_alone(project):
    with project.changed(**{name: value for name, (value, _) in CHANGED.items()}):
        assert changed_inputs(project) == {name.partition(".")[0]: {stage} for name, (_, stage) in CHANGED.items()}
    assert changed_inputs(project) == {}


EDITED = {
    "mis/style.py": {"report"},
    "mis/tune/console/table.py": set(),
    "mis/data/check/wording.py": {"preprocess"},  # it writes the table of findings
    "mis/errors.py": {"phantom", "preprocess", "report"},
    "mis/train/messages.py": {"report"},  # which takes seconds
    "mis/model/losses.py": {"train", "tune", "scaling"},
    "mis/evaluate/scores.py": {"evaluate"},
}


def test_wording_and_colours_train_and_search_nothing_anew_and_the_loss_all(project):
    before = {file: (project.root / file).read_bytes() for file in EDITED}
    try:
        for file, content in before.items():
            (project.root / file).write_bytes(content + b"# edited\n")
        assert changed_inputs(project) == {file: stages for file, stages in EDITED.items() if stages}
        # Whoever has an input of its own that has changed is run.
        assert project.stages_of("dvc", "repro", "--dry") == set.union(*EDITED.values())
    finally:
        for file, content in before.items():
            (project.root / file).write_bytes(content)


def test_a_change_runs_what_depends_on_it_and_nothing_else(project, tracker):
    """As an experiment of DVC, and back."""
    before = len(runs_of(tracker, EVALUATE))
    with project.changed():
        change = ("--set-param", "evaluate.pictures=2", "--name", "more")
        assert project.stages_of("dvc", "exp", "run", *change) == {"evaluate", "report"}
    runs = runs_of(tracker, EVALUATE)
    assert len(runs) == before + 1
    assert runs[0].data.params["evaluate.pictures"] == "2"
    shown = json.loads(project.run("dvc", "exp", "show", "--json", "--only-changed").stdout)
    assert "more" in json.dumps(shown)
    assert project.stages_of("dvc", "repro") == {"evaluate", "report"}


def test_bad_input_leaves_what_there_was(project):
    """DVC removes a stage's outputs before it runs, unless it is told that the stage replaces them whole."""
    kept = ["models/train.keras", "results/train/metrics.json", "results/train/history.csv", "data/records/index.json"]
    before = {name: (project.root / name).read_bytes() for name in kept}
    with project.changed(**{"train.learning_rte": 1e-3}):
        done = project.run("dvc", "repro", code=255)
        assert "error: params.yaml: a parameter must exist, got train.learning_rte" in done.stderr
    assert {name: (project.root / name).read_bytes() for name in kept} == before
    assert project.stages_of("dvc", "repro") == set()


def test_the_split_names_every_case_once(project):
    split = json.loads((project.root / "data/records/split.json").read_text())
    cases = [f"BRATS_{number:03d}" for number in range(1, 9)]
    assert sorted(split["train"] + split["val"] + split["test"]) == cases


def test_the_test_split_alone_is_evaluated(project):
    split = json.loads((project.root / "data/records/split.json").read_text())
    assert sorted(row["case"] for row in rows_of(project.root / "results/evaluate/cases.csv")) == sorted(split["test"])


def test_the_better_model_is_evaluated(project):
    results = project.root / "results"
    train = json.loads((results / "train/metrics.json").read_text())["dice"]
    tune = json.loads((results / "tune/metrics.json").read_text())["best/dice"]
    chosen = json.loads((results / "evaluate/metrics.json").read_text())
    assert chosen["val_dice"] == max(train, tune)
    assert chosen["model"] == ("train" if train >= tune else "tune")


def test_the_modes_compute_the_same(project):
    """Same trials, same epochs, same learning rates: only the time may differ."""
    by_trial: dict[str, list[float]] = {}
    for row in rows_of(project.root / "results/scaling/trials.csv"):
        by_trial.setdefault(row["trial"], []).append(float(row["dice"]))
    assert len(by_trial) == 2
    for scores in by_trial.values():
        assert len(scores) == 5  # one device, two in each mode
        assert max(scores) - min(scores) < 1e-4


def test_speedup_follows_from_the_times(project):
    cells = {
        (row["mode"], row["devices"]): float(row["elapsed_s"])
        for row in rows_of(project.root / "results/scaling/cells.csv")
    }
    for row in rows_of(project.root / "results/scaling/speedup.csv"):
        own = cells["data", "1"] if row["devices"] == "1" else cells[row["mode"], row["devices"]]
        assert float(row["speedup"]) == pytest.approx(cells["data", "1"] / own)
        assert float(row["efficiency"]) == pytest.approx(float(row["speedup"]) / int(row["devices"]))


def test_metrics_show(project):
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert {f"results/{stage}/metrics.json" for stage in ("train", "tune", "evaluate", "scaling")} <= set(shown)


def test_trials_are_children_of_their_study(tracker):
    runs = runs_of(tracker, TUNE)
    (study,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    assert len(children) == 3
    assert study.data.metrics["best/dice"] == max(run.data.metrics["best/dice"] for run in children)


def test_every_epoch_is_a_step(tracker):
    (run,) = runs_of(tracker, TRAIN)
    for metric in ("train/loss", "train/dice", "val/loss", "val/dice", "val/dice_wt", "time/epoch_s", "time/total_s"):
        assert [point.step for point in tracker.client.get_metric_history(run.info.run_id, metric)] == [1, 2, 3]


def test_numbers_of_devices_are_the_steps_of_a_scaling_mode(tracker):
    runs = [run for run in runs_of(tracker, SCALING) if "mlflow.parentRunId" not in run.data.tags]
    assert {run.info.run_name for run in runs} == {*MODE_NAMES.values()}
    for run in runs:
        for metric in ("speedup", "efficiency", "elapsed_s"):
            assert [point.step for point in tracker.client.get_metric_history(run.info.run_id, metric)] == [1, 2]


def test_every_run_says_where_it_comes_from(project, tracker):
    digest = read_records(project.root / "data" / "records").data_hash
    head = project.run("git", "rev-parse", "HEAD").stdout.strip()
    assert digest
    for experiment in (TRAIN, TUNE, SCALING, EVALUATE):
        for run in runs_of(tracker, experiment):
            assert run.info.status == "FINISHED"
            assert run.data.tags["mis.data.dvc_hash"] == digest
            # A run of a changed params.yaml says so.
            assert run.data.tags["mis.git_commit"].removesuffix("-dirty") == head
            assert {"mis.host", "mis.version.keras", "mis.version.tensorflow"} <= set(run.data.tags)
            assert run.data.params["train.learning_rate"]
            assert run.inputs.dataset_inputs[0].dataset.digest == digest


def test_the_ui_shows_the_trials_and_the_speedup_curves(project, tracker):
    study, children = tracker.last_study(TUNE)
    names = [tracker.client.get_run(child).info.run_name for child in children]
    port, log = free_port(first=5900), project.root / "mlruns" / "ui.log"
    base = f"http://127.0.0.1:{port}"
    with server(tracker.uri, port, log) as process, browser.open_page() as page:
        wait_until_ready(process, base, log)
        links = {link.key: link.url for link in comparison_links(base, tracker)}
        browser.assert_study_with_trials(page, links["tune.runs"], tracker.client.get_run(study).info.run_name, names)
        browser.assert_study_figures(page, links["tune.figures"], ["History", "Parallel coordinates", "Slices"])
        charts = charts_url(base, tracker.experiment_id(SCALING))
        browser.assert_speedup_curves(page, charts, [*MODE_NAMES.values()])


def test_the_report_stands_alone(project):
    """It shows the trials and both curves with nothing but its own file."""
    alone = project.root.parent / "report-alone.html"
    shutil.copy2(project.root / "results/report/report.html", alone)
    with browser.open_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(alone.as_uri())
        text = page.inner_text("body")
        for expected in ("data parallelism", "experiment parallelism", "000", "001", "002"):
            assert expected in text.lower()
        pictures = page.locator("img")
        assert pictures.count() >= 5
        for index in range(pictures.count()):
            assert pictures.nth(index).evaluate("image => image.complete && image.naturalWidth > 0")
        assert all(url.startswith(("file:", "data:")) for url in asked)
    alone.unlink()
