import pytest

from mis.params.scaling import MODES
from mis.report import scaling_figures
from mis.report.results import read_results
from mis.scaling.cells import MeasuredCell
from mis.scaling.plan import Cell
from mis.scaling.timeline import Stretch
from mis.tune.allocation import Place
from tests.scaling.cells import cell, trial


def legend(axes):
    return {text.get_text() for text in axes.get_legend().get_texts()}


def bars(axes):
    """Return (left, top, width, height) of every bar."""
    return [(bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()) for bar in axes.patches]


def test_the_speedup_has_the_modes_and_the_ideal_line(run):
    axes, efficiency, epochs = scaling_figures.speedup(read_results(run.write()).scaling.cells).axes
    assert legend(axes) == {"ideal", "data", "experiment"}
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["ideal"].get_xydata().tolist() == [[1, 1], [2, 2]]
    drawn = {container.get_label(): container[0].get_ydata().tolist() for container in axes.containers}
    assert drawn == {"data": [1, pytest.approx(1.6)], "experiment": [1, pytest.approx(2)]}
    reached = {container.get_label(): container[0].get_ydata().tolist() for container in efficiency.containers}
    assert reached == {"data": [100, pytest.approx(80)], "experiment": [100, pytest.approx(100)]}
    assert epochs.get_lines()[0].get_xdata().tolist() == [1, 2]


def test_the_spread_over_the_rounds_is_drawn():
    slower = cell("data", 2, 1, single_s=4.0)
    axes, *_ = scaling_figures.speedup([cell("data", 1), cell("data", 1, 1), cell("data", 2), slower]).axes
    (container,) = axes.containers
    assert container[2][0].get_segments()[1][:, 1].tolist() == [pytest.approx(1.0), pytest.approx(2.0)]


def test_the_ideal_line_of_one_device_is_a_point(make_run):
    axes, *_ = scaling_figures.speedup(read_results(make_run(devices=[1]).write()).scaling.cells).axes
    assert axes.get_lines()[0].get_xydata().tolist() == [[1, 1]]


@pytest.mark.parametrize(("devices", "named"), [(4, 0), (8, 2)])
def test_the_papers_points_are_drawn_where_they_do_not_dwarf_the_rest(devices, named):
    axes, *_ = scaling_figures.speedup([cell("data", 1), cell("data", devices)]).axes
    assert sum("the paper" in text.get_text() for text in axes.texts) == named


def test_a_bar_is_as_high_as_its_part_of_the_devices():
    cells = [cell(mode, 2) for mode in MODES if mode != "hybrid"]
    (axes,) = scaling_figures.timeline([cell("data", 1), *cells, cell("data", 2, number=1)]).axes
    drawn = bars(axes)
    assert len(drawn) == 4 * 4, "another round is not drawn"
    one, data, experiment, _ = (drawn[index : index + 4] for index in range(0, 16, 4))
    assert [bar[3] for bar in one] == [1] * 4
    assert [(bar[0], bar[2], bar[3]) for bar in data] == [(0, 1, 2), (1, 1, 2), (2, 1, 2), (3, 1, 2)]
    assert [(bar[0], bar[2], bar[3]) for bar in experiment] == [(0, 2, 1), (0, 2, 1), (2, 2, 1), (2, 2, 1)]
    assert experiment[0][1] != experiment[1][1]
    assert len({bar[1] for bar in data}) == 1


def test_a_trial_that_gets_a_device_more_has_a_higher_bar():
    first, second = Place(((0, 1),)), Place(((0, 2),))
    stretches = (Stretch(0, first, 0, 2, 1), Stretch(1, first, 0, 4, 1), Stretch(0, second, 4, 6, 1))
    trials = (trial(0, 0, 6, devices=2), trial(1, 0, 4))
    (axes,) = scaling_figures.timeline([MeasuredCell(Cell("elastic", 2, 1, 0), (2,), 1.0, 1.0, trials, stretches)]).axes
    assert sorted((bar[0], bar[3]) for bar in bars(axes)) == [(0, 1), (0, 1), (4, 2)]
    assert "ideal" not in axes.get_title(loc="left"), "without a reference there is none"


def test_the_terms_of_an_epoch_add_up():
    (axes,) = scaling_figures.terms([cell("data", 1), cell("data", 2)]).axes
    ends = {}
    for bar in axes.patches:
        ends[bar.get_y()] = max(ends.get(bar.get_y(), 0.0), bar.get_x() + bar.get_width())
    # An epoch of 1 s on one device and of 0.5 s on two, and 0.2 s beside two epochs.
    assert sorted(ends.values()) == pytest.approx([0.6, 1.1])
    assert len(legend(axes)) == 5


def test_many_devices_do_not_crowd_out_few(make_run):
    results = read_results(make_run(devices=[1, 2, 32]).write())
    (axes,) = scaling_figures.timeline(results.scaling.cells).axes
    heights = [bar[3] for bar in bars(axes)]
    assert heights[0] == 1
    assert max(heights) == pytest.approx(6)


def test_a_cell_by_itself_has_a_timeline_alone():
    assert set(scaling_figures.pictures([cell("data", 2)])) == {"timeline"}
    assert set(scaling_figures.pictures([cell("data", 1), cell("data", 2)])) == {"timeline", "speedup", "terms"}
