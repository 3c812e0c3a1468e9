from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.tune.allocation import MARGIN_S, Cluster, Demand, Place, Speeds, assign, sizes_for

IDEAL = Speeds(per_doubling=1.0)


@st.composite
def situations(draw):
    """Trials that run on devices which there are, trials that wait, the cluster, speeds and the cost of a restart."""
    nodes = tuple(draw(st.lists(st.integers(1, 8), min_size=1, max_size=4)))
    cluster = Cluster(nodes, across_nodes=draw(st.booleans()))
    speeds = Speeds(per_doubling=draw(st.floats(0.4, 1.0)))
    idle, demands = list(nodes), []
    for number in range(draw(st.integers(0, 8))):
        most = sum(nodes) if cluster.across_nodes else max(nodes)
        sizes = draw(st.sampled_from([sizes_for(batch, most) for batch in (1, 2, 6, 8)] + [(min(2, most),)]))
        counts = {}
        for node in draw(st.permutations(range(len(nodes)))) if draw(st.booleans()) else ():
            taken = min(idle[node], draw(st.sampled_from(sizes)) - sum(counts.values()))
            if taken > 0 and (cluster.across_nodes or not counts):
                counts[node] = taken
        place = Place(tuple(sorted(counts.items())))
        if place.devices not in sizes:
            place = None
        else:
            for node, count in place.counts:
                idle[node] -= count
        demands.append(Demand(number, draw(st.floats(0, 1e4)), sizes, place))
    return demands, cluster, speeds, draw(st.floats(0, 100))


def after(demands, places):
    """Return the trials with the devices that they were assigned."""
    return [replace(demand, place=places.get(demand.trial, demand.place)) for demand in demands]


def held(demand, place):
    """Return the devices of each node that no other trial can have: one that is to have more leaves none before."""
    now, then = dict(demand.place.counts) if demand.place else {}, dict(place.counts)
    if sum(now.values()) > place.devices:
        return then
    return {node: max(now.get(node, 0), then.get(node, 0)) for node in now | then}


def left_s(demand, devices, speeds, *, restart_s=0.0):
    return demand.left_s / speeds(devices) + restart_s


@given(situations())
def test_no_device_is_had_twice_and_each_trial_has_a_number_that_it_can_have(situation):
    demands, cluster, speeds, restart_s = situation
    places = assign(demands, cluster, speeds, restart_s)
    for node, devices in enumerate(cluster.nodes):
        assert sum(dict(place.counts).get(node, 0) for place in places.values()) <= devices
    for demand in demands:
        if demand.trial in places:
            assert places[demand.trial].devices in demand.sizes
            assert all(count > 0 for _, count in places[demand.trial].counts)


@given(situations())
def test_a_trial_stays_on_one_node_where_its_strategy_cannot_be_spread(situation):
    demands, cluster, speeds, restart_s = situation
    if not cluster.across_nodes:
        assert all(len(place.counts) == 1 for place in assign(demands, cluster, speeds, restart_s).values())


@given(situations())
def test_no_trial_starves(situation):
    demands, cluster, speeds, restart_s = situation
    places = assign(demands, cluster, speeds, restart_s)
    waiting = [demand for demand in demands if demand.place is None]
    begun = [demand for demand in waiting if demand.trial in places]
    assert begun == waiting[: len(begun)], "in the order in which they wait"
    assert {demand.trial for demand in demands if demand.place is not None} <= set(places), "who runs goes on"
    if len(begun) < len(waiting):
        # Even what all others have beyond their smallest share would not suffice.
        smallest = waiting[len(begun)].sizes[0]
        fixed = [demand for demand in demands if demand.trial in places and len(demand.sizes) > 1]
        spare = sum(places[demand.trial].devices - demand.sizes[0] for demand in fixed)
        idle = sum(cluster.nodes) - sum(place.devices for place in places.values())
        assert spare + idle < smallest or not cluster.across_nodes


@given(situations())
def test_no_device_is_idle_while_a_trial_gains_more_from_it_than_a_restart_costs(situation):
    demands, cluster, speeds, restart_s = situation
    places = assign(demands, cluster, speeds, restart_s)
    if any(demand.trial not in places for demand in demands):
        return  # what is idle is kept for the first that waits
    idle = [
        devices - sum(held(demand, places[demand.trial]).get(node, 0) for demand in demands)
        for node, devices in enumerate(cluster.nodes)
    ]
    for demand in demands:
        place = places[demand.trial]
        mine = held(demand, place)
        available = [devices + mine.get(node, 0) for node, devices in enumerate(idle)]
        most = sum(available) if cluster.across_nodes else max(available)
        restarted = demand.place is not None and demand.place != place
        now = left_s(demand, place.devices, speeds, restart_s=restart_s if restarted else 0.0)
        for size in demand.sizes:
            if place.devices < size <= most:
                restart = restart_s if demand.place is not None else 0.0
                assert left_s(demand, size, speeds, restart_s=restart) >= now - 2 * MARGIN_S


@given(situations(), st.floats(0.01, 1.0))
def test_what_was_assigned_stays_while_no_trial_begins_or_ends(situation, part_left):
    demands, cluster, speeds, restart_s = situation
    places = assign(demands, cluster, speeds, restart_s)
    if any(
        held(demand, places[demand.trial]) != dict(places[demand.trial].counts)
        for demand in demands
        if demand.trial in places
    ):
        return  # a trial goes to another node: what it leaves is another one's then
    later = [replace(demand, left_s=demand.left_s * part_left) for demand in after(demands, places)]
    assert assign(later, cluster, speeds, restart_s) == places


@given(situations())
def test_a_trial_that_needs_more_than_there_is_waits_and_changes_nothing(situation):
    demands, cluster, speeds, restart_s = situation
    running = [demand for demand in demands if demand.place is not None]
    too_large = Demand(99, 10.0, (sum(cluster.nodes) + 1,))
    assert assign([*running, too_large], cluster, speeds, restart_s) == {
        demand.trial: demand.place for demand in running
    }


def one(count=1, node=0):
    return Place(((node, count),))


def test_idle_devices_go_to_the_trial_with_the_most_time_left():
    demands = [Demand(0, 100.0, (1, 2), one()), Demand(1, 300.0, (1, 2), one())]
    assert assign(demands, Cluster((3,)), IDEAL, restart_s=10.0) == {0: one(), 1: one(2)}


def test_a_trial_whose_restart_costs_more_than_it_gains_keeps_its_devices():
    demands = [Demand(0, 100.0, (1, 2), one())]
    assert assign(demands, Cluster((2,)), IDEAL, restart_s=49.0) == {0: one(2)}
    assert assign(demands, Cluster((2,)), IDEAL, restart_s=51.0) == {0: one()}


def test_a_step_that_gains_nothing_is_passed_over_for_a_larger_one():
    speeds = Speeds({2: 0.9, 4: 3.0})
    demands = [Demand(0, 100.0, (1, 2, 4), one())]
    assert assign(demands, Cluster((4,)), speeds, restart_s=1.0) == {0: one(4)}


def test_a_new_trial_gets_a_device_back_from_the_trial_that_ends_first():
    demands = [Demand(0, 100.0, (1, 2), one(2)), Demand(1, 300.0, (1, 2), one(2)), Demand(2, 50.0, (1, 2))]
    assert assign(demands, Cluster((4,)), IDEAL, restart_s=5.0) == {0: one(), 1: one(2), 2: one()}


def test_a_trial_is_spread_over_nodes_only_where_it_can_be():
    demands = [Demand(0, 100.0, (4,))]
    assert assign(demands, Cluster((2, 2)), IDEAL, 0.0) == {0: Place(((0, 2), (1, 2)))}
    assert assign(demands, Cluster((2, 2), across_nodes=False), IDEAL, 0.0) == {}
    assert assign(demands, Cluster((2, 4)), IDEAL, 0.0) == {0: one(4, node=1)}, "on one node where it fits"


def test_a_trial_grows_on_its_own_node_where_it_can():
    demands = [Demand(0, 100.0, (1, 2), one(node=1))]
    assert assign(demands, Cluster((2, 2)), IDEAL, 1.0) == {0: one(2, node=1)}


@pytest.mark.parametrize(("trials", "expected"), [(1, [4]), (2, [2, 2]), (3, [1, 1, 2]), (6, [1, 1, 1, 1])])
def test_trials_of_equal_length_are_given_equal_shares(trials, expected):
    demands = [Demand(number, 100.0, (1, 2, 4)) for number in range(trials)]
    places = assign(demands, Cluster((4,)), IDEAL, 5.0)
    assert sorted(place.devices for place in places.values()) == expected


def test_a_fixed_number_of_devices_is_data_or_hybrid_parallelism():
    demands = [Demand(number, 100.0, (2,)) for number in range(3)]
    assert assign(demands, Cluster((4,)), IDEAL, 5.0) == {0: one(2), 1: one(2)}
