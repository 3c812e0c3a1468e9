import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.params.scaling import MODES, ScalingParams, each_of
from mis.scaling.plan import Cell, nodes_of, plan, plan_round

counts = st.sets(st.integers(1, 64), max_size=6).map(lambda others: sorted({1, *others}))


def scaling(devices, modes=MODES, rounds=1, hybrid=None):
    return ScalingParams(
        devices=devices,
        modes=modes,
        hybrid_devices=hybrid,
        epochs=1,
        rounds=rounds,
        target_dice=None,
        trials=[{}] * max(devices),
    )


@pytest.mark.parametrize(
    ("mode", "devices", "hybrid", "each"),
    [
        ("data", 4, None, 4),
        ("experiment", 4, None, 1),
        ("elastic", 4, None, 1),
        ("hybrid", 16, None, 4),
        ("hybrid", 16, 8, 8),
        ("hybrid", 2, 8, 2),
    ],
)
def test_devices_of_a_trial_by_hand(mode, devices, hybrid, each):
    assert each_of(mode, devices, hybrid) == each


@given(devices=counts, number=st.integers(0, 9))
def test_every_mode_has_every_number_of_devices_and_all_share_the_reference(devices, number):
    cells = plan_round(scaling(devices), number)
    assert len(cells) == len(set(cells)) == 1 + 4 * (len(devices) - 1)
    assert [cell for cell in cells if cell.devices == 1] == [Cell("data", 1, 1, number)]
    for mode in MODES:
        of_mode = sorted(cell.devices for cell in cells if cell.mode == mode and cell.devices > 1)
        assert of_mode == devices[1:]


def test_the_order_is_another_one_in_each_round_and_the_same_in_each_session():
    params = scaling([1, 2, 4, 8], rounds=6)
    assert plan(params) == plan(params)
    orders = {tuple((cell.mode, cell.devices) for cell in plan_round(params, number)) for number in range(6)}
    assert len(orders) > 1


@given(available=st.lists(st.integers(0, 8), min_size=1, max_size=5), data=st.data())
def test_a_cell_has_its_devices_and_no_node_more_than_it_has(available, data):
    devices = data.draw(st.integers(0, sum(available)))
    nodes = nodes_of(available, devices)
    assert sum(nodes) == devices
    assert all(count <= most for count, most in zip(nodes, available, strict=True))
