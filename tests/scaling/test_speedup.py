import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.scaling.plan import Cell, plan_round
from mis.scaling.speedup import Speedup, speedups

seconds = st.floats(0.1, 1e4)


@st.composite
def measured(draw):
    """Return the time of every cell of some rounds."""
    workers = sorted({1, *draw(st.sets(st.integers(2, 32), max_size=3))})
    rounds = draw(st.integers(1, 4))
    return {cell: draw(seconds) for number in range(rounds) for cell in plan_round(workers, number)}


def by_cell(elapsed_s):
    return {(speedup.mode, speedup.workers): speedup for speedup in speedups(elapsed_s)}


def test_one_round_by_hand():
    times = {Cell("experiment", 1, 0): 12.0, Cell("experiment", 4, 0): 4.0, Cell("data", 4, 0): 6.0}
    assert speedups(times) == [
        Speedup("data", 1, 12.0, 1.0, 1.0, 1.0),
        Speedup("data", 4, 6.0, 2.0, 2.0, 2.0),
        Speedup("experiment", 1, 12.0, 1.0, 1.0, 1.0),
        Speedup("experiment", 4, 4.0, 3.0, 3.0, 3.0),
    ]
    assert [speedup.efficiency for speedup in speedups(times)] == [1.0, 0.5, 1.0, 0.75]


def test_rounds_are_compared_each_with_its_own_reference():
    # The machine is twice as slow in the second round, and disturbed once in the third.
    times = {
        Cell("experiment", 1, 0): 10.0, Cell("experiment", 2, 0): 5.0, Cell("data", 2, 0): 8.0,
        Cell("experiment", 1, 1): 20.0, Cell("experiment", 2, 1): 10.0, Cell("data", 2, 1): 16.0,
        Cell("experiment", 1, 2): 10.0, Cell("experiment", 2, 2): 20.0, Cell("data", 2, 2): 4.0,
    }  # fmt: skip
    result = by_cell(times)
    assert result["experiment", 2] == Speedup("experiment", 2, 10.0, 2.0, 0.5, 2.0)
    assert result["data", 2] == Speedup("data", 2, 8.0, 1.25, 1.25, 2.5)
    assert result["data", 1].elapsed_s == 10.0


@given(times=measured())
def test_one_worker_is_its_own_reference_in_both_modes(times):
    result = by_cell(times)
    for mode in ("data", "experiment"):
        single = result[mode, 1]
        assert (single.speedup, single.speedup_min, single.speedup_max, single.efficiency) == (1, 1, 1, 1)


@given(times=measured(), factor=st.floats(0.01, 100))
def test_the_unit_of_time_does_not_matter(times, factor):
    scaled = by_cell({cell: value * factor for cell, value in times.items()})
    for key, speedup in by_cell(times).items():
        assert scaled[key].speedup == pytest.approx(speedup.speedup)
        assert scaled[key].elapsed_s == pytest.approx(speedup.elapsed_s * factor)


@given(times=measured())
def test_the_median_lies_within_the_spread(times):
    for speedup in speedups(times):
        assert speedup.speedup_min <= speedup.speedup <= speedup.speedup_max
        assert speedup.efficiency == pytest.approx(speedup.speedup / speedup.workers)


@given(times=measured())
def test_the_order_of_the_measurements_does_not_matter(times):
    assert speedups(dict(reversed(times.items()))) == speedups(times)
