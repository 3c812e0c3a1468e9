import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.track.names import RESTART_S, RESTARTS
from mis.tune.allocation import Cluster, Place
from mis.tune.elastic import RESTART_COST_S, ElasticAllocation, Experience

SIZES = (1, 2, 4)


def place(devices, node=0):
    return Place(((node, devices),))


@pytest.fixture
def allocation(clock):
    """Two trials of ten epochs that may begin on four devices of a node."""
    return ElasticAllocation(Cluster((4,)), epochs=10, trials=2, clock=clock)


def run(allocation, number, *epochs, start="first", sizes=SIZES):
    """Report epochs, each as (number, seconds)."""
    for epoch, seconds in epochs:
        allocation.epoch_ended(number, epoch, seconds, start, sizes)


def test_devices_are_kept_for_the_trials_that_are_to_come(allocation):
    assert allocation.begin(0, SIZES) == place(2), "the other two are for the second trial"
    assert allocation.begin(1, SIZES) == place(2)


def test_the_last_trial_may_have_all_devices():
    allocation = ElasticAllocation(Cluster((4,)), epochs=10, trials=1)
    assert allocation.begin(0, SIZES) == place(4)


def test_as_many_trials_run_as_there_are_devices_while_there_are_so_many():
    allocation = ElasticAllocation(Cluster((4,)), epochs=10, trials=9)
    assert [allocation.begin(number, SIZES) for number in range(4)] == [place(1)] * 4
    assert allocation.begin(4, SIZES) is None


def test_a_device_that_becomes_idle_joins_the_trial_that_has_most_left(clock):
    allocation = ElasticAllocation(Cluster((2,)), epochs=10, trials=2, clock=clock)
    for number, seconds in ((0, 20.0), (1, 60.0)):
        allocation.begin(number, SIZES)
        run(allocation, number, (1, seconds), (2, seconds))
    assert allocation.goes_on_with(1) == place(1)
    allocation.end(0)
    assert allocation.goes_on_with(1) == place(2)
    assert allocation.place(1) == place(1), "until it is restarted"
    assert allocation.restart(1) == place(2)
    assert allocation.place(1) == place(2)


def test_what_a_trial_gives_back_it_gives_at_the_end_of_its_epoch(clock):
    allocation = ElasticAllocation(Cluster((2,)), epochs=10, trials=1, clock=clock)
    assert allocation.begin(0, SIZES) == place(2)
    run(allocation, 0, (1, 60.0))
    assert allocation.begin(1, SIZES) == place(1), "which it waits for"
    assert allocation.place(0) == place(2)
    assert allocation.goes_on_with(0) == place(1)


def test_a_trial_in_its_last_epoch_is_not_restarted(clock):
    allocation = ElasticAllocation(Cluster((2,)), epochs=2, trials=2, clock=clock)
    for number in (0, 1):
        allocation.begin(number, SIZES)
        run(allocation, number, (1, 600.0))
    allocation.end(0)
    run(allocation, 1, (2, 600.0))
    assert allocation.goes_on_with(1) == place(1)


def test_epochs_of_an_earlier_session_are_not_left(clock):
    allocation = ElasticAllocation(Cluster((3,)), epochs=10, trials=3, clock=clock)
    for number in range(3):
        allocation.begin(number, (1, 2), 6 if number == 0 else 0)
    allocation.end(2)
    for number, epoch, seconds in ((0, 7, 90.0), (1, 1, 60.0)):
        run(allocation, number, (epoch, seconds), sizes=(1, 2))
    assert allocation.goes_on_with(0).devices == 1, "three epochs are left"
    assert allocation.goes_on_with(1).devices == 2, "nine are left"


def test_restarts_and_speeds_are_measured(clock):
    allocation = ElasticAllocation(Cluster((2,)), epochs=10, trials=2, clock=clock)
    assert allocation.summary() == {RESTARTS: 0.0, RESTART_S: RESTART_COST_S}
    for number in (0, 1):
        allocation.begin(number, SIZES)
        run(allocation, number, (1, 90.0), (2, 60.0), (3, 64.0))
    allocation.end(0)
    allocation.goes_on_with(1)
    clock.now = 100.0
    allocation.restart(1)
    # An epoch of 62 s on one device is expected to take 62 / 1.8 = 34.4 s on two; it took 50 s from the restart on.
    clock.now = 150.0
    run(allocation, 1, (4, 45.0), start="second")
    assert allocation.restart_s == pytest.approx(50 - 62 / 1.8)
    assert not allocation.measured_speeds, "the first epoch after a start traces"
    run(allocation, 1, (5, 40.0), start="second")
    assert allocation.measured_speeds == {2: pytest.approx(62 / 40)}
    allocation.end(1)
    assert allocation.summary() == {
        RESTARTS: 1.0,
        RESTART_S: pytest.approx(50 - 62 / 1.8),
        "elastic/speed_2": pytest.approx(62 / 40),
    }


def test_a_search_begins_with_what_earlier_ones_have_measured(clock):
    earlier = [
        {RESTARTS: 3.0, RESTART_S: 8.0, "elastic/speed_2": 1.5},
        {RESTARTS: 1.0, RESTART_S: 10.0, "elastic/speed_2": 1.7, "elastic/speed_4": 2.0},
        {RESTARTS: 0.0, RESTART_S: RESTART_COST_S},
        {"best/dice": 0.5},
    ]
    experience = Experience.of(earlier)
    assert experience.restart_s == 9.0
    assert experience.speeds.measured == {2: 1.6, 4: 2.0}
    assert Experience.of([]).restart_s == RESTART_COST_S
    allocation = ElasticAllocation(Cluster((2,)), epochs=10, trials=1, experience=experience, clock=clock)
    assert allocation.restart_s == 9.0
    assert allocation.speeds(2) == 1.6
    assert allocation.summary() == {RESTARTS: 0.0, RESTART_S: 9.0}, "only what was measured here is told later ones"


def test_a_trial_whose_node_is_lost_begins_elsewhere():
    allocation = ElasticAllocation(Cluster((1, 1)), epochs=10, trials=2)
    assert allocation.begin(0, SIZES) == place(1)
    assert allocation.begin(1, SIZES) == place(1, node=1)
    allocation.set_nodes((1, 0))
    assert allocation.begin(1, SIZES, epochs=3) is None, "the other node has no device to spare"
    assert allocation.waits(1)
    run(allocation, 0, (1, 60.0))
    allocation.end(0)
    allocation.found(1, place(1), epochs=3)  # where it was put, once there was room
    assert not allocation.waits(1)
    assert allocation.place(1) == place(1)


def test_a_device_is_kept_for_a_trial_that_waits():
    allocation = ElasticAllocation(Cluster((2,)), epochs=10, trials=3)
    for number in range(3):
        allocation.begin(number, SIZES)
        if number < 2:
            run(allocation, number, (1, 600.0))
    allocation.end(0)
    assert allocation.goes_on_with(1) == place(1)


@given(
    nodes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    trials=st.integers(1, 6),
    epochs_s=st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 100.0)), max_size=60),
)
def test_without_a_begin_or_an_end_a_trial_only_ever_gets_more(nodes, trials, epochs_s):
    """No flapping, whatever is measured meanwhile of speeds and restarts: each change costs a restart."""
    now_s = [0.0]
    allocation = ElasticAllocation(Cluster(tuple(nodes)), epochs=30, trials=trials, clock=lambda: now_s[0])
    begun = [number for number in range(trials) if allocation.begin(number, SIZES) is not None]
    allocation.to_come = 0  # the search is over: what is idle may be used
    had = {number: [allocation.place(number)] for number in begun}
    epochs, starts = dict.fromkeys(begun, 0), dict.fromkeys(begun, 0)
    for drawn, seconds in epochs_s:
        number = begun[drawn % len(begun)]
        now_s[0] += seconds
        epochs[number] += 1
        allocation.epoch_ended(number, epochs[number], seconds, f"start {starts[number]}", SIZES)
        if allocation.goes_on_with(number) != allocation.place(number):
            had[number].append(allocation.restart(number))
            starts[number] += 1
    for places in had.values():
        counts = [place.devices for place in places]
        assert counts == sorted(set(counts))
