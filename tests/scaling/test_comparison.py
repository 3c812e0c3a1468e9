from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.params.scaling import MODES
from mis.scaling.against import MeasuredRun, compare_with
from mis.scaling.cell_store import CellStore
from mis.scaling.comparison import Comparison, read_comparison, write_comparison
from mis.scaling.plan import Cell
from tests.scaling.cells import EPOCHS, cell


def comparison(rounds=2):
    cells = [cell(mode, 2, number) for number in range(rounds) for mode in MODES]
    return Comparison([*(cell("data", 1, number) for number in range(rounds)), *cells], EPOCHS, batch_size=4)


def test_what_is_written_is_read(tmp_path):
    write_comparison(tmp_path / "comparison.json", comparison())
    assert read_comparison(tmp_path / "comparison.json") == comparison()


def test_a_row_has_what_a_mode_has_taken():
    (row,) = (row for row in comparison().rows() if (row["mode"], row["devices"]) == ("experiment", 2))
    assert (row["elapsed_s"], row["speedup"], row["efficiency"], row["cold_s"]) == (4.0, 2.0, 1.0, 3.0)
    assert row["utilisation"] == 1.0
    assert row["device_hours"] == pytest.approx(8.0 / 3600)


def test_the_summary_is_by_mode_and_number_of_devices():
    summary = comparison().summary()
    assert list(summary) == list(MODES)
    assert summary["hybrid"] == {"speedup_1": 1.0, "efficiency_1": 1.0, "speedup_2": 2.0, "efficiency_2": 1.0}


def test_every_trial_of_every_cell_has_a_row():
    rows = comparison(rounds=1).trial_rows()
    assert len(rows) == 5 * 4
    assert {(row["mode"], row["devices"], row["trial_devices"]) for row in rows} == {
        ("data", 1, 1),
        ("data", 2, 2),
        ("experiment", 2, 1),
        ("hybrid", 2, 1),
        ("elastic", 2, 1),
    }


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_simulator_says_what_ideal_cells_have_taken(rounds):
    runs = [MeasuredRun.model_validate(run) for run in comparison(rounds).to_json()["runs"]]
    assert [run.mode for run in runs][rounds:] == [*MODES] * rounds
    assert [compare_with(run).error for run in runs] == pytest.approx([0.0] * len(runs))


def test_a_cell_is_predicted_from_the_other_rounds():
    cells = [cell("data", 1, 0, single_s=2.0), cell("data", 1, 1, single_s=3.0)]
    runs = Comparison(cells, EPOCHS, 4).to_json()["runs"]
    assert [run["trials"] for run in runs] == [[3.0] * 4, [2.0] * 4]


@given(mode=st.sampled_from(MODES), devices=st.integers(1, 8), number=st.integers(0, 3))
def test_a_stored_cell_is_read_and_another_one_is_not(tmp_path_factory, mode, devices, number):
    store, measured = CellStore(tmp_path_factory.mktemp("cells")), cell(mode, devices, number)
    store.write(measured)
    assert store.read(measured.cell) == measured
    assert store.read(replace(measured.cell, round=number + 1)) is None


def test_a_damaged_cell_is_measured_again(tmp_path):
    store = CellStore(tmp_path)
    store.write(cell("data", 2))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    assert store.read(Cell("data", 2, 2, 0)) is None


def test_a_store_keeps_its_name_until_it_is_removed(tmp_path):
    store = CellStore(tmp_path / "scaling-abc")
    assert CellStore(tmp_path / "scaling-abc").name == store.name
    assert store.name.startswith("scaling-abc-")
    store.remove()
    assert not store.folder.exists()
