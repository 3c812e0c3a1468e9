from itertools import pairwise

import pytest

from mis.scaling import paper
from mis.scaling.published import predictions
from mis.scaling.reported import GPUS, REPORTED


def test_half_of_each_table_is_fitted_and_half_predicted():
    found = predictions()
    assert {(one.what, one.half) for one in found} == {
        (what, half)
        for what in ("minutes of a training", "samples a second", "seconds of initialisation")
        for half in ("fitted", "predicted")
    }
    assert len(found) == 4 + 2 * 6


def test_a_prediction_by_hand():
    (a100,) = (one for one in predictions() if one.machine == "A100 AMP")
    # V100: (35 / 181 - 13.13 / 97.68) / (1 - 13.13 / 97.68) = .0681 and (131 / 580 - .12557) / .87443 = .1147 do not
    # scale, in the mean .0914: of 85 minutes 7.77 stay, and 77.23 become 77.23 * 29.3 / 219.34 = 10.32.
    assert a100.published == 19
    assert a100.predicted == pytest.approx(7.77 + 10.32, abs=0.02)
    assert a100.error == pytest.approx(18.09 / 19 - 1, abs=0.001)


def test_what_is_fitted_without_freedom_is_exact():
    for one in predictions():
        if one.half == "fitted" and one.what != "minutes of a training":
            assert one.predicted == pytest.approx(one.published)


def test_the_papers_two_figures_come_out_of_its_cluster():
    costs = paper.cluster()
    reached = {point.mode: point.speedup for point in paper.explained(costs, gpus=[GPUS])}
    assert reached == pytest.approx(REPORTED, rel=0.02)


def test_every_parameter_of_the_papers_cluster_says_where_it_comes_from():
    rows = paper.cluster().rows()
    assert {row["source"] for row in rows} == {"paper", "published", "assumed"}
    assert all(row["note"] for row in rows if row["source"] == "published")


def test_the_shared_file_system_is_what_the_figures_depend_on():
    found = {(one.parameter, one.times): one for one in paper.sensitivities(paper.cluster())}
    assert {times for _, times in found} == {0.5, 2.0}
    most = max(found.values(), key=lambda one: abs(one.experiment - REPORTED["experiment"]))
    assert most.parameter in ("shared_bytes_per_s", "sample_s")
    assert found["within_latency_s", 2.0].data == pytest.approx(REPORTED["data"], rel=0.02)


def test_each_step_is_faster_than_the_one_before():
    speedups = [point.speedup for _, point in paper.improvements(paper.cluster())]
    assert speedups[0] == pytest.approx(REPORTED["experiment"], rel=0.02)
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(speedups))
