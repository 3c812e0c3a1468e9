import pytest

from mis.report import scaling_figures
from mis.report.results import Measurement, TimedTrial, read_results


def legend(axes):
    return {text.get_text() for text in axes.get_legend().get_texts()}


def bars(axes):
    """Return (left, top, width, height) of every bar."""
    return [(bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()) for bar in axes.patches]


def test_the_speedup_has_both_modes_and_the_ideal_line(run):
    axes, elapsed = scaling_figures.speedup(read_results(run.write()).scaling).axes
    assert legend(axes) == {"ideal", "data parallelism", "experiment parallelism"}
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["ideal"].get_xydata().tolist() == [[1, 1], [2, 2]]
    drawn = {container.get_label(): container[0].get_ydata().tolist() for container in axes.containers}
    assert drawn == {"data parallelism": [1, pytest.approx(1.6)], "experiment parallelism": [1, pytest.approx(2)]}
    spreads = {container.get_label(): container[2][0].get_segments()[1][:, 1].tolist() for container in axes.containers}
    assert spreads["experiment parallelism"] == [pytest.approx(1.75), pytest.approx(2.25)]
    assert legend(elapsed) == {"data parallelism", "experiment parallelism"}


def test_the_ideal_line_of_one_worker_is_a_point(make_run):
    axes, _ = scaling_figures.speedup(read_results(make_run(workers=[1]).write()).scaling).axes
    assert axes.get_lines()[0].get_xydata().tolist() == [[1, 1]]
    assert legend(axes) == {"ideal", "data parallelism", "experiment parallelism"}


def test_a_bar_is_as_high_as_its_share_of_the_workers():
    timed = [TimedTrial(0, 0.0, 4.0), TimedTrial(1, 4.0, 8.0)]
    at_once = [TimedTrial(0, 0.0, 4.0), TimedTrial(1, 0.0, 5.0)]
    halved = [TimedTrial(0, 0.0, 3.0), TimedTrial(1, 3.0, 6.0)]
    (axes,) = scaling_figures.timeline(
        [
            Measurement("experiment", 1, 0, 8.0, timed),
            Measurement("experiment", 2, 0, 5.0, at_once),
            Measurement("data", 2, 0, 6.0, halved),
            Measurement("data", 2, 1, 60.0, []),  # another round
        ]
    ).axes
    one, data, experiment = bars(axes)[:2], bars(axes)[2:4], bars(axes)[4:]
    assert [bar[3] for bar in one] == [1, 1]
    assert [(bar[0], bar[2], bar[3]) for bar in data] == [(0, 3, 2), (3, 3, 2)]
    assert [(bar[0], bar[2], bar[3]) for bar in experiment] == [(0, 4, 1), (0, 5, 1)]
    assert experiment[0][1] != experiment[1][1]
    assert len({bar[1] for bar in data}) == 1


def test_a_free_worker_takes_the_next_trial():
    trials = [TimedTrial(0, 0, 5), TimedTrial(1, 0, 2), TimedTrial(2, 2, 6), TimedTrial(3, 5, 7)]
    (axes,) = scaling_figures.timeline([Measurement("experiment", 2, 0, 7.0, trials)]).axes
    lanes = [bar[1] for bar in bars(axes)]
    assert lanes[0] == lanes[3]
    assert lanes[1] == lanes[2]


def test_many_workers_do_not_crowd_out_few(make_run):
    results = read_results(make_run(workers=[1, 2, 32]).write())
    (axes,) = scaling_figures.timeline(results.scaling.measurements).axes
    heights = [bar[3] for bar in bars(axes)]
    assert heights[0] == 1
    assert max(heights) == pytest.approx(6)
