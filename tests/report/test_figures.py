import numpy as np

from mis.report import figures
from mis.report.results import Case, read_results


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
