from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.errors import MisError
from mis.params.scaling import MODES
from mis.scaling.curves import parse_devices, simulate_modes
from mis.scaling.early_stopping import EarlyStopping
from mis.scaling.pace import MeasuredPace, SimulatedTrial
from mis.scaling.paper import cluster
from mis.scaling.simulate import simulate, sizes_of
from mis.scaling.workload import Workload

BATCH = 8
WORKLOAD = Workload(10, 2, batch_size=BATCH)
IDEAL = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}

trials = st.lists(st.floats(1, 50), min_size=16, max_size=24).map(
    lambda seconds: [SimulatedTrial(5, one) for one in seconds]
)
nodes = st.sampled_from([(1,), (2,), (4,), (2, 2), (3, 1), (8,), (4, 4)])
speeds = st.floats(0.5, 1.0).map(lambda efficiency: {count: efficiency * count for count in (2, 4, 8)})
modes = st.sampled_from(MODES)
restarts = st.floats(0, 30)


def run(mode, listed, on, measured, restart_s=0.0, stopping=None):
    pace = MeasuredPace({1: 1.0, **measured}, restart_seconds=restart_s)
    return simulate(listed, on, pace, sizes_of(mode, sum(on), WORKLOAD), stopping)


@given(modes, trials, nodes, speeds, restarts)
def test_every_trial_has_all_its_epochs_once(mode, listed, on, measured, restart_s):
    timeline = run(mode, listed, on, measured, restart_s)
    for number, trial in enumerate(listed):
        stretches = [stretch for stretch in timeline.stretches if stretch.trial == number]
        assert sum(stretch.epochs for stretch in stretches) == trial.epochs
        assert all(before.end_s <= after.begin_s + 1e-6 for before, after in pairwise(stretches))


@given(modes, trials, nodes, speeds, restarts)
def test_no_device_is_had_twice_at_a_time(mode, listed, on, measured, restart_s):
    timeline = run(mode, listed, on, measured, restart_s)
    for node, devices in enumerate(on):
        for moment in {stretch.begin_s for stretch in timeline.stretches}:
            had = [
                dict(stretch.place.counts).get(node, 0)
                for stretch in timeline.stretches
                if stretch.begin_s <= moment + 1e-6 and stretch.end_s > moment + 2e-6
            ]
            assert sum(had) <= devices


@given(modes, trials, nodes, speeds, restarts)
def test_no_mode_is_more_than_n_times_faster(mode, listed, on, measured, restart_s):
    single_s = run(mode, listed, (1,), measured).elapsed_s
    assert single_s == pytest.approx(sum(trial.factor * trial.epochs for trial in listed))
    assert single_s / run(mode, listed, on, measured, restart_s).elapsed_s <= sum(on) * (1 + 1e-6)


@given(trials, st.sampled_from([(1, 2), (2, 4), (4, 8), (1, 8)]))
def test_equal_trials_are_never_slower_on_more_devices(listed, counts):
    """Where trials are of equal length, several devices are as much faster, and a restart costs nothing."""
    equal = [SimulatedTrial(5, 10.0)] * len(listed)
    fewer_s, more_s = (run("elastic", equal, (count,), IDEAL).elapsed_s for count in counts)
    assert more_s <= fewer_s + 1e-6


@given(trials, nodes, speeds, restarts)
def test_elastic_is_no_slower_than_experiment(listed, on, measured, restart_s):
    """Both begin trials in the same order on one device each; a restart is made only where it gains more."""
    elastic, experiment = (run(mode, listed, on, measured, restart_s).elapsed_s for mode in ("elastic", "experiment"))
    assert elastic <= experiment + 1e-6


def test_by_hand():
    # Two trials of 10 and 30 s on two devices: after 10 s the second has both, for 20 s of work, after a restart of 2.
    listed = [SimulatedTrial(10, 1.0), SimulatedTrial(10, 3.0)]
    elapsed = {mode: run(mode, listed, (2,), {2: 2.0}, restart_s=2.0).elapsed_s for mode in MODES}
    # The second trial's epoch ends 12 s after its start.
    assert elapsed == pytest.approx({"data": 20.0, "experiment": 30.0, "hybrid": 20.0, "elastic": 12 + 2 + 18 / 2})


def test_one_in_so_many_goes_on_at_each_rung():
    listed = [SimulatedTrial(9, 1.0, quality=number / 27) for number in reversed(range(27))]
    timeline = run("experiment", listed, (1,), {}, stopping=EarlyStopping(1, 3))
    epochs = [stretch.epochs for stretch in timeline.stretches]
    assert epochs.count(9) < 9
    assert epochs.count(1) >= 15
    assert max(epochs) == 9


def test_a_thousand_devices():
    points = simulate_modes(cluster(), Workload(338, 73, 16), [1024], epochs=5, spread=0.3)
    assert [point.trials for point in points] == [1024] * 4
    assert all(0 < point.speedup <= 1024 and point.utilisation <= 1 + 1e-9 for point in points)


def test_fewer_trials_than_devices_are_refused_with_the_number():
    with pytest.raises(MisError, match="at least as many trials as there are devices, 4, got 3; add --trials 4"):
        simulate_modes(cluster(), WORKLOAD, [4], trials=3, epochs=2, spread=0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4", [4]), ("1, 3", [1, 3]), ("1,...,8", [1, 2, 4, 8]), ("1,2,4,…,20", [1, 2, 4, 8, 16, 20])],
)
def test_a_list_of_devices(text, expected):
    assert parse_devices(text) == expected


@pytest.mark.parametrize("text", ["", "0", "2,1", "1,1", "...,4", "1,...", "1,x", "-1"])
def test_what_is_no_list_of_devices_is_refused(text):
    with pytest.raises(MisError, match="--devices takes rising numbers"):
        parse_devices(text)
