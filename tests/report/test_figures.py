import numpy as np

from mis.report import figures
from mis.report.results import Case, read_results


def legend(axes):
    return {text.get_text() for text in axes.get_legend().get_texts()}


def test_every_trial_has_a_curve_as_long_as_its_epochs(run):
    results = read_results(run.write())
    (axes,) = figures.trial_curves(results.trials, results.best_trial).axes
    curves = [line.get_ydata().tolist() for line in axes.get_lines() if line.get_linestyle() != "None"]
    assert sorted(curves) == [[0.05], [0.1, 0.3], [0.2, 0.4]]
    assert legend(axes) == {"best trial", "completed", "stopped by the scheduler"}
    assert {text.get_text() for text in axes.texts} == {"000", "001", "002"}


def test_a_parameter_over_decades_has_a_log_axis_and_words_have_columns(run):
    results = read_results(run.write())
    rate, norm = figures.parameters(results.trials, results.best_trial).axes
    assert (rate.get_title(loc="left"), norm.get_title(loc="left")) == ("train.learning_rate", "model.norm")
    assert rate.get_xscale() == "log"
    assert [label.get_text() for label in norm.get_xticklabels()] == ["batch", "group"]
    points = {tuple(line.get_xydata()[0]) for line in rate.get_lines()}
    assert points == {(0.001, 0.3), (0.01, 0.4), (0.02, 0.05)}


def test_trials_in_a_column_stand_beside_each_other(run):
    results = read_results(run.write())
    norm = figures.parameters(results.trials, results.best_trial).axes[1]
    places = sorted(line.get_xdata()[0] for line in norm.get_lines())
    assert len(set(places)) == 3
    assert [round(place) for place in places] == [0, 0, 1]


def test_a_trial_without_a_score_lies_on_the_axis(run):
    run.trials.append(run.trial("003", "failed", [], 0.5, "group", error="no memory"))
    results = read_results(run.write())
    rate = figures.parameters(results.trials, results.best_trial).axes[0]
    assert (0.5, 0.0) in {tuple(line.get_xydata()[0]) for line in rate.get_lines()}


def test_every_case_is_a_point_of_every_region(run):
    (axes,) = figures.case_scores(read_results(run.write()).evaluation.cases).axes
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == ["WT", "WT", "TC", "ET"]
    strips = [line.get_ydata().tolist() for line in axes.get_lines() if line.get_linestyle() == "None"]
    assert strips == [[0.8, 0.6], [0.3, 0.5], [0.8, 0.6], [0.8, 0.6]]


def test_the_cases_of_a_whole_data_set_get_boxes():
    cases = [Case(f"case{n}", n / 73, {"WT": n / 73}, 0.5) for n in range(73)]
    (axes,) = figures.case_scores(cases).axes
    strip = next(line for line in axes.get_lines() if line.get_marker() == "o")
    assert len(strip.get_ydata()) == 73
    assert np.ptp(strip.get_xdata()) < 0.5


def test_spread_keeps_the_order_and_the_gap():
    places = [0.5, 0.49, 0.9, 0.5]
    moved = figures.spread(places, 0.1)
    assert sorted(range(4), key=lambda n: (places[n], n)) == sorted(range(4), key=lambda n: moved[n])
    assert np.diff(sorted(moved)).min() >= 0.1 - 1e-9
    assert all(new >= old for new, old in zip(moved, places, strict=True))
