from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.scaling.plan import Cell
from mis.scaling.speedup import CellFigures, Speedup, speedups
from tests.scaling.test_plan import plan_round, scaling

seconds = st.floats(0.1, 1e4)


@st.composite
def measured(draw):
    """Return the figures of every cell of some rounds."""
    params = scaling(sorted({1, *draw(st.sets(st.integers(2, 32), max_size=3))}))
    rounds = draw(st.integers(1, 4))
    return [CellFigures(cell, draw(seconds)) for number in range(rounds) for cell in plan_round(params, number)]


def by_cell(figures):
    return {(speedup.mode, speedup.devices): speedup for speedup in speedups(figures)}


def cells(*times):
    """Return figures from mode, number of devices, round and seconds."""
    return [CellFigures(Cell(mode, devices, 1, number), elapsed_s) for mode, devices, number, elapsed_s in times]


def test_one_round_by_hand():
    times = cells(("data", 1, 0, 12.0), ("experiment", 4, 0, 4.0), ("data", 4, 0, 6.0))
    assert speedups(times) == [
        Speedup("data", 1, 12.0, 1.0, 1.0, 1.0),
        Speedup("data", 4, 6.0, 2.0, 2.0, 2.0),
        Speedup("experiment", 1, 12.0, 1.0, 1.0, 1.0),
        Speedup("experiment", 4, 4.0, 3.0, 3.0, 3.0),
    ]
    assert [speedup.efficiency for speedup in speedups(times)] == [1.0, 0.5, 1.0, 0.75]


def test_rounds_are_compared_each_with_its_own_reference():
    # The machine is twice as slow in the second round, and disturbed once in the third.
    times = cells(
        *(("data", 1, 0, 10.0), ("experiment", 2, 0, 5.0), ("data", 2, 0, 8.0)),
        *(("data", 1, 1, 20.0), ("experiment", 2, 1, 10.0), ("data", 2, 1, 16.0)),
        *(("data", 1, 2, 10.0), ("experiment", 2, 2, 20.0), ("data", 2, 2, 4.0)),
    )
    result = by_cell(times)
    assert result["experiment", 2] == Speedup("experiment", 2, 10.0, 2.0, 0.5, 2.0)
    assert result["data", 2] == Speedup("data", 2, 8.0, 1.25, 1.25, 2.5)
    assert result["data", 1].elapsed_s == 10.0


def test_a_target_counts_where_it_was_reached_in_every_round():
    both = [
        replace(one, target_s=number + 1.0) for number, one in enumerate(cells(("data", 1, 0, 9), ("data", 1, 1, 9)))
    ]
    assert speedups(both)[0].target_s == 1.5
    assert speedups([both[0], replace(both[1], target_s=None)])[0].target_s is None


@given(figures=measured())
def test_one_device_is_its_own_reference_in_every_mode(figures):
    for speedup in speedups(figures):
        if speedup.devices == 1:
            assert (speedup.speedup, speedup.speedup_min, speedup.speedup_max, speedup.efficiency) == (1, 1, 1, 1)


@given(figures=measured(), factor=st.floats(0.01, 100))
def test_the_unit_of_time_does_not_matter(figures, factor):
    scaled = by_cell([replace(one, elapsed_s=one.elapsed_s * factor) for one in figures])
    for key, speedup in by_cell(figures).items():
        assert scaled[key].speedup == pytest.approx(speedup.speedup)
        assert scaled[key].elapsed_s == pytest.approx(speedup.elapsed_s * factor)


@given(figures=measured())
def test_the_median_lies_within_the_spread(figures):
    for speedup in speedups(figures):
        assert speedup.speedup_min <= speedup.speedup <= speedup.speedup_max
        assert speedup.efficiency == pytest.approx(speedup.speedup / speedup.devices)


@given(figures=measured())
def test_the_order_of_the_measurements_does_not_matter(figures):
    assert speedups(figures[::-1]) == speedups(figures)
