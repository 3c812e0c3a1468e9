"""`python -m mis.track` in a real browser: a person sees the study with its trials, and both speed-up curves."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mis.ports import free_port
from mis.settings import load_settings
from mis.track.base import SCALING, TUNE
from mis.track.links import comparison_links
from mis.track.mlflow import MlflowTracker
from tests.browser import (
    assert_curves,
    assert_speedup_curves,
    assert_study_with_trials,
    assert_trials_compared,
    open_page,
)

pytestmark = [
    pytest.mark.slow,
]

TRIALS = ["trial-0", "trial-1", "trial-2"]


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """A store as the pipeline leaves it."""
    tracker = MlflowTracker(load_settings({"MIS_ROOT": str(tmp_path_factory.mktemp("project"))}))
    study = tracker.start_run(TUNE, "study")
    for index, name in enumerate(TRIALS):
        params = {"train.learning_rate": 10.0 ** -(index + 2), "model.norm": ["batch", "group"][index % 2]}
        trial = tracker.start_run(TUNE, name, parent=study.id, params=params)
        for epoch in range(4):
            trial.log_metrics({"val/dice": 0.2 * epoch + 0.05 * index}, epoch)
        trial.finish()
    study.log_metrics({"best/dice": 0.7})
    study.finish()
    for name, share in (("data", 0.8), ("experiment", 0.95)):
        mode = tracker.start_run(SCALING, name)
        for devices in (1, 2):
            speedup = devices**share
            mode.log_metrics({"speedup": speedup, "efficiency": speedup / devices, "elapsed_s": 60 / speedup}, devices)
            cell = tracker.start_run(SCALING, f"{name} on {devices}", parent=mode.id)  # it is not among the curves
            cell.log_metrics({"elapsed_s": 60 / speedup})
            cell.finish()
        mode.finish()
    return tracker


@pytest.fixture(scope="module")
def ui(tracker):
    """The running command, and the lines that it has printed."""
    root = str(tracker.uri).removeprefix("sqlite:///").removesuffix("/mlruns/mlflow.db")
    env = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {"MIS_ROOT": root}
    command = [sys.executable, "-m", "mis.track", "--port", str(free_port())]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        while not lines or not lines[-1].startswith("MLflow:"):
            lines.append(process.stdout.readline())
            assert lines[-1], "the command ended before it had printed its links"
        yield process, lines
        process.terminate()


@pytest.fixture(scope="module")
def links(tracker, ui):
    """The addresses that the command has printed, by key."""
    _, lines = ui
    base_url = lines[-1].split()[-1]
    links = comparison_links(base_url, tracker)
    assert [line.split()[-1] for line in lines[1:]] == [*(link.url for link in links), base_url]
    return {link.key: link.url for link in links}


@pytest.fixture(scope="module")
def page():
    with open_page() as page:
        yield page


def test_the_trials_stand_below_their_study(page, links, tmp_path):
    assert_study_with_trials(page, links["tune.runs"], "study", TRIALS)
    page.screenshot(path=tmp_path / "study.png")


def test_the_trials_curves_are_drawn(page, links, tmp_path):
    assert_curves(page, links["tune.charts"], "val/dice", TRIALS)
    page.screenshot(path=tmp_path / "trials.png")


def test_the_trials_are_compared(page, links, tmp_path):
    assert_trials_compared(page, links["tune.compare"], TRIALS, ["train.learning_rate", "model.norm"])
    page.screenshot(path=tmp_path / "compare.png")


def test_both_speedup_curves_are_drawn(page, links, tmp_path):
    assert_speedup_curves(page, links["scaling.charts"], ["data", "experiment"])
    page.screenshot(path=tmp_path / "speedup.png")


def test_a_curve_that_is_missing_is_noticed(page, links):
    with pytest.raises(AssertionError, match="neither"):
        assert_curves(page, links["scaling.charts"], "speedup", ["data", "experiment", "neither"], patience_ms=1000)
    with pytest.raises(AssertionError, match="2 lines are drawn for 1 runs"):
        assert_curves(page, links["scaling.charts"], "speedup", ["data"], patience_ms=1000)


@pytest.mark.usefixtures("page")  # with a page open the server would wait for its connections
def test_nothing_runs_on_after_the_command_was_ended(ui):
    process, _ = ui
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert time.monotonic() - began < 15
    assert [child for child in children if child.is_running()] == []
