import json
import os
import re
import subprocess
import sys
import warnings
from hashlib import sha256
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pytest
from matplotlib import image, pyplot
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from mis.report.study import pictures
from mis.report.study.drawable import Drawable
from mis.report.study.figures import write_figures
from tests.browser import open_page

ONE = ["history.png", "parallel_coordinates.png", "importances.png", "slice.png", "study.html"]
TWO = [*ONE[:4], "pareto_front.png", "study.html"]
HEADINGS = ["History", "Parallel coordinates", "Importances", "Slices", "Pareto front"]


def empty_study(objectives=1, names=None):
    study = optuna.create_study(
        directions=["maximize", "minimize"][:objectives], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    if names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(names)
    return study


def add(study, *values, state=None, **params):
    """Add a trial with these values of parameters that are searched from 0 to 1."""
    study.enqueue_trial(params)
    trial = study.ask()
    for name in params:
        trial.suggest_float(name, 0, 1)
    study.tell(trial, list(values) or None, state=state)


def add_many(study, count):
    """Add trials of eight parameters, one of them conditional; the Dice depends on the learning rate."""
    for number in range(count):
        trial = study.ask()
        rate = trial.suggest_float("train.learning_rate", 1e-5, 1e-1, log=True)
        norm = trial.suggest_categorical("model.norm", ["batch", "group"])
        if norm == "group":
            trial.suggest_categorical("model.norm_groups", [2, 4, 8])
        trial.suggest_categorical("model.deep_supervision", [True, False])
        filters = trial.suggest_int("model.base_filters", 4, 32, log=True)
        trial.suggest_int("train.batch_size", 2, 8, step=2)
        trial.suggest_float("train.weight_decay_of_the_kernels", 0, 0.5, step=0.05)
        trial.suggest_categorical("train.augmentation", ["none", "flip", "flip and rotate", "elastic"])
        dice = 0.8 - 0.1 * (np.log10(rate) + 3) ** 2 + 0.001 * (number % 3)
        study.tell(trial, [dice, 1.7 * filters**1.5][: len(study.directions)])
    return study


def add_all_kinds(study):
    """Add trials that failed, diverged, run, and wait."""
    study.tell(study.ask(), state=TrialState.FAIL)
    if len(study.directions) == 1:
        study.tell(study.ask(), state=TrialState.FAIL)
    study.tell(study.ask(), [-np.inf, 1.0][: len(study.directions)])
    study.ask()
    study.enqueue_trial({"train.learning_rate": 1e-2})
    return study


def add_stopped(study):
    """Add a trial that was stopped early."""
    stopped = study.ask()
    stopped.set_user_attr("state", "stopped")
    study.tell(stopped, 0.25)
    return study


def names_of(paths):
    return [path.name for path in paths]


def written(study, folder):
    """Write figures and return their names; the folder has them and nothing else."""
    paths = write_figures(study, folder)
    assert {*paths} == {*folder.glob("*")}
    return names_of(paths)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder of a large study's figures."""
    folder = tmp_path_factory.mktemp("one")
    assert names_of(write_figures(add_many(add_stopped(add_all_kinds(empty_study())), 24), folder)) == ONE
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The same with two objectives."""
    folder = tmp_path_factory.mktemp("two")
    study = add_many(add_all_kinds(empty_study(2, ["Dice", "seconds"])), 24)
    assert names_of(write_figures(study, folder)) == TWO
    return folder


# ---- What is drawn of which study ----


def test_nothing_is_written_of_a_study_without_a_completed_trial(tmp_path):
    assert write_figures(empty_study(), tmp_path / "none") == []
    assert write_figures(add_all_kinds(empty_study()), tmp_path / "none") == []
    assert write_figures(add_all_kinds(empty_study(2)), tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_one_trial_has_a_history_alone(tmp_path):
    study = empty_study()
    add(study, 0.5, a=0.5, b=0.5)
    assert written(study, tmp_path / "new" / "folder") == ["history.png", "study.html"]


def test_one_trial_of_two_objectives_is_a_front(tmp_path):
    study = empty_study(2)
    add(study, 0.5, 10.0, a=0.5)
    assert written(study, tmp_path) == ["history.png", "pareto_front.png", "study.html"]


def test_trials_that_are_equally_good_have_no_importances(tmp_path):
    study = empty_study()
    for place in (0.1, 0.5, 0.7, 0.9, 1.0):
        add(study, 0.5, a=place, b=1 - place)
    assert written(study, tmp_path) == ["history.png", "parallel_coordinates.png", "slice.png", "study.html"]


def test_a_parameter_with_a_single_value_is_left_out(tmp_path):
    study = empty_study()
    for place in (0.1, 0.5, 0.7, 0.9):
        add(study, place, a=place, b=0.3, c=1 - place)
    assert Drawable.of(study).parameters == ["a", "c"]
    assert set(Drawable.of(study).importances) == {"a", "c"}
    written(study, tmp_path)
    assert not re.search(r'"text":"b"', (tmp_path / "study.html").read_text(encoding="utf-8"))


def test_a_single_parameter_shares_with_no_other():
    study = empty_study()
    for place in (0.1, 0.5, 0.7, 0.9):
        add(study, place, a=place)
    assert Drawable.of(study).figures == ["history", "parallel_coordinates", "slice"]


def test_only_what_has_both_objectives_is_completed():
    study = empty_study(2)
    add(study, 0.5, np.inf, a=0.1)
    add(study, 0.4, 10.0, a=0.2)
    add(study, 0.3, 20.0, a=0.3)
    drawable = Drawable.of(study)
    assert [trial.number for trial in drawable.trials] == [1, 2]
    assert [trial.number for trial in drawable.failed] == [0]
    assert [trial.number for trial in drawable.front] == [1]


def test_a_value_out_of_its_range_that_a_person_has_enqueued(tmp_path):
    study = empty_study()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Optuna's: it is out of range
        add(study, 0.9, a=5.0, b=0.5)
    for place in (0.1, 0.4, 0.6):
        add(study, place, a=place, b=place)
    assert written(study, tmp_path) == ONE
    assert {trial.params["a"] for trial in Drawable.of(study).trials} == {5.0, 0.1, 0.4, 0.6}


def test_a_parameter_that_one_trial_alone_does_not_have(tmp_path):
    study = empty_study()
    for place in (0.1, 0.4, 0.6, 0.9):
        add(study, place, a=place, b=place, c=place)
    add(study, 0.5, a=0.3, b=0.8)
    assert written(study, tmp_path) == ONE


def test_the_study_itself_and_optuna_s_verbosity_stay_as_they_are(tmp_path):
    study = add_many(add_all_kinds(empty_study()), 4)
    trials, verbosity = study.get_trials(), optuna.logging.get_verbosity()
    write_figures(study, tmp_path)
    assert study.get_trials() == trials
    assert optuna.logging.get_verbosity() == verbosity


def test_the_user_is_told_of_no_other_study(tmp_path, capfd):
    study = add_many(add_all_kinds(empty_study()), 4)
    capfd.readouterr()
    write_figures(study, tmp_path)
    assert capfd.readouterr() == ("", "")


# ---- Pictures ----


@pytest.mark.parametrize("name", TWO[:-1])
def test_a_picture_is_of_a_sensible_size_and_not_empty(two, name):
    pixels = image.imread(two / name)
    height, width = pixels.shape[:2]
    assert width == 1760
    assert 300 < height < 2000
    assert 0.01 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5


def test_nothing_is_left_in_pyplot(tmp_path):
    before = dict(pyplot.rcParams)
    study = empty_study()
    for place in (0.1, 0.2, 0.4, 0.5):
        add(study, place, a=place, b=place)
    write_figures(study, tmp_path)
    assert pyplot.get_fignums() == []
    assert dict(pyplot.rcParams) == before


def marks(axes, marker):
    return [tuple(point) for line in axes.get_lines() if line.get_marker() == marker for point in line.get_xydata()]


def test_the_history_has_every_trial_where_it_belongs():
    study = add_stopped(add_all_kinds(empty_study()))  # 0 and 1 failed, 2 diverged, 3 runs, 4 was stopped
    for dice in (0.3, 0.7, 0.5, 0.7):
        add(study, dice)
    (axes,) = pictures.history(Drawable.of(study)).axes
    assert marks(axes, "o") == [(5, 0.3), (6, 0.7), (7, 0.5), (8, 0.7)]
    assert marks(axes, "*") == [(6, 0.7)]
    assert marks(axes, "x") == [(4, 0.25)]
    assert [x for x, _ in marks(axes, "v")] == [0, 1, 2]
    assert marks(axes, "None") == [(4, 0.25), (5, 0.3), (6, 0.7), (7, 0.7), (8, 0.7)]


def test_the_front_is_what_no_trial_surpasses():
    study = empty_study(2, ["Dice", "parameters"])
    for dice, second in ((0.5, 10.0), (0.4, 20.0), (0.7, 30.0), (0.6, 30.0), (0.3, 5.0)):
        add(study, dice, second)
    (axes,) = pictures.pareto_front(Drawable.of(study)).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("parameters", "Dice")
    others, _, front = axes.get_lines()
    assert sorted(map(tuple, others.get_xydata())) == [(20.0, 0.4), (30.0, 0.6)]
    assert list(map(tuple, front.get_xydata())) == [(5.0, 0.3), (10.0, 0.5), (30.0, 0.7)]
    assert {text.get_text() for text in axes.texts} == {"004", "000", "002"}


def test_a_log_parameter_has_a_log_axis_and_a_choice_has_columns():
    figure = pictures.slices(Drawable.of(add_many(empty_study(), 12)))
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert panels["train.learning_rate"].get_xscale() == "log"
    assert panels["train.batch_size"].get_xscale() == "linear"
    columns = [label.get_text() for label in panels["model.deep_supervision"].get_xticklabels()]
    assert columns == ["True", "False"]
    assert re.fullmatch(r"in \d+ of 12 trials", panels["model.norm_groups"].get_xlabel())
    assert panels["model.norm"].get_xlabel() == ""


def test_every_trial_is_a_line_through_all_uprights():
    drawable = Drawable.of(add_many(empty_study(), 12))
    (axes,) = pictures.parallel_coordinates(drawable).axes
    lines = [line.get_ydata() for line in axes.get_lines() if len(line.get_ydata()) > 2]
    assert [len(line) for line in lines] == [1 + len(drawable.parameters)] * 12
    groups = 1 + drawable.parameters.index("model.norm_groups")
    missing = sum(line[groups] == pictures.MISSING for line in lines)
    assert missing == 12 - len(drawable.having("model.norm_groups")) > 0
    inside = [place for line in lines for place in np.delete(line, groups)]
    assert 0 <= min(inside) <= max(inside) <= 1


def test_no_texts_overlap():
    drawable = Drawable.of(add_many(empty_study(2), 24))
    for name in ("parallel_coordinates", "slice", "importances"):
        figure = pictures.PICTURES[name](drawable)
        figure.draw_without_rendering()
        for axes in figure.axes:
            labels = [label for label in axes.get_xticklabels() if label.get_text() and not label.get_rotation()]
            boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
            assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), name


# ---- Importances ----


def test_the_parameter_that_matters_has_the_largest_importance():
    for seed in range(5):
        study = empty_study()
        study.sampler = optuna.samplers.RandomSampler(seed=seed)
        importances = Drawable.of(add_many(study, 30)).importances
        assert next(iter(importances)) == "train.learning_rate"
        assert sum(importances.values()) == pytest.approx(1)
        assert list(importances.values()) == sorted(importances.values(), reverse=True)


def test_a_conditional_parameter_has_an_importance():
    assert "model.norm_groups" in Drawable.of(add_many(empty_study(), 30)).importances


def test_diverged_trials_may_be_most():
    study = empty_study()
    for number, place in enumerate((0.1, 0.3, 0.5, 0.6, 0.7, 0.9)):
        add(study, 0.0 if number else 0.5, a=place, b=place)
    assert Drawable.of(study).figures == ["history", "parallel_coordinates", "importances", "slice"]


SCRIPT = """
import json, sys, tempfile
from tests.report.study.test_figures import digests
with tempfile.TemporaryDirectory() as folder:
    print(json.dumps([digests(folder), sorted({"torch", "tensorflow", "ray"} & {*sys.modules})]))
"""


def digests(folder):
    """Write the figures of a study that is always the same, and return what is in the files."""
    return [sha256(path.read_bytes()).hexdigest() for path in write_figures(add_many(empty_study(), 8), Path(folder))]


def run(source, seed):
    """Run Python source in a process with another order of sets; return what it prints, read as JSON."""
    env = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", source], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_same_study_has_the_same_files_and_needs_no_torch(tmp_path):
    assert run(SCRIPT, 1) == [digests(tmp_path), []]


def test_an_import_alone_costs_nothing():
    names = "{'matplotlib', 'plotly'}"
    source = f"import json, sys, mis.report.study.figures; print(json.dumps(sorted({names} & {{*sys.modules}})))"
    assert run(source, 0) == []


# ---- Page ----


@pytest.mark.parametrize(("folder", "count"), [("one", 4), ("two", 5)])
def test_the_page_has_every_heading_and_plotly_once(folder, count, request):
    page = (request.getfixturevalue(folder) / "study.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*)</h2>", page) == HEADINGS[:count]
    assert page.count(get_plotlyjs()) == 1
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page.replace(get_plotlyjs(), ""))


def test_the_page_tells_of_the_trials(one):
    page = (one / "study.html").read_text(encoding="utf-8")
    (words,) = re.findall("<p>(Trials:.*)</p>", page)
    counts = "25 with a Dice, 1 of them stopped early, 3 failed"
    assert re.fullmatch(rf"Trials: {counts}\. The best is trial \d{{3}} with Dice 0\.\d{{4}}\.", words)


@pytest.mark.slow
def test_the_page_draws_every_plot_in_a_browser_without_a_network(two):
    with open_page() as page:
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.context.set_offline(True)
        page.goto((two / "study.html").as_uri())
        plots = page.locator(".js-plotly-plot")
        plots.last.locator(".main-svg").first.wait_for()
        assert plots.count() == 7  # the slices have three
        drawn = plots.evaluate_all(
            "plots => plots.map(plot => plot.querySelectorAll('.points path, .js-line, .scatterlayer .point').length)"
        )
        assert min(drawn) >= 8
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_names_and_values_are_text_in_the_page(tmp_path):
    study = empty_study(names=["<b>Dice</b>"])
    for number in range(4):
        trial = study.ask()
        trial.suggest_categorical("</script><script>alert(1)</script>", ["</script>", "$x_1$"])
        study.tell(trial, number / 4)
    paths = write_figures(study, tmp_path)
    page = paths[-1].read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert "alert(1)</script>" not in page
    assert "<b>" not in page
    assert image.imread(BytesIO(paths[0].read_bytes())).size
