from matplotlib import pyplot

from mis import style
from mis.report import figures
from mis.report.results import read_results


def test_nothing_is_left_in_pyplot(run):
    before = dict(pyplot.rcParams)
    results = read_results(run.write())
    style.png(figures.learning_curves(results.history))
    assert pyplot.get_fignums() == []
    assert dict(pyplot.rcParams) == before
