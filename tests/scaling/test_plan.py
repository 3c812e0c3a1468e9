import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.scaling.plan import MODES, Cell, plan_round

counts = st.sets(st.integers(1, 64), max_size=6).map(lambda others: sorted({1, *others}))


@pytest.mark.parametrize(
    ("cell", "processes", "devices"),
    [
        (Cell("data", 4, 0), 1, 4),
        (Cell("experiment", 4, 0), 4, 1),
        (Cell("data", 1, 0), 1, 1),
        (Cell("experiment", 1, 0), 1, 1),
    ],
)
def test_processes_and_devices_by_hand(cell, processes, devices):
    assert (cell.processes, cell.devices) == (processes, devices)


@given(workers=counts, number=st.integers(0, 9))
def test_both_modes_have_every_number_of_workers_and_share_the_reference(workers, number):
    cells = plan_round(workers, number)
    assert len(cells) == len(set(cells)) == 2 * len(workers) - 1
    assert cells[0] == Cell("experiment", 1, number)
    assert {cell.round for cell in cells} == {number}
    for mode in MODES:
        assert [cell.workers for cell in cells if cell.mode == mode] == [
            count for count in workers if count > 1 or mode == "experiment"
        ]


@given(workers=counts)
def test_every_cell_uses_as_many_devices_as_it_has_workers(workers):
    assert all(cell.processes * cell.devices == cell.workers for cell in plan_round(workers, 0))


@given(workers=counts)
def test_cells_that_can_share_their_processes_come_first(workers):
    devices = [cell.devices for cell in plan_round(workers, 0)]
    assert devices == sorted(devices)
    assert devices.count(1) == len(workers)
