"""What is recommended, by values that are computed by hand and by properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.errors import MisError
from mis.scaling.cost_sets import CostSet
from mis.scaling.costs import Costs
from mis.scaling.recommend import reason, recommend, settings_for
from mis.scaling.workload import Workload

WORKLOAD = Workload(cases=8, validation_cases=0, batch_size=4)
IDEAL = CostSet("ideal", Costs(sample_s=1.0), devices_per_node=4)


def advice(costs=IDEAL, devices=4, trials=8, workload=WORKLOAD, **given):
    return recommend(costs, workload, devices, trials, **{"epochs": 10, "spread": 0.0, **given})


def by_name(found):
    return {one.setting.name: one for one in found}


def test_without_losses_all_modes_take_the_work_over_the_devices():
    for one in advice():
        assert one.elapsed_s == pytest.approx(8 * 10 * 8 / 4)
        assert one.device_hours == pytest.approx(8 * 10 * 8 / 3600)
        assert one.low_s == one.elapsed_s == one.high_s


def test_where_devices_wait_for_each_other_experiment_is_first():
    waits = CostSet("waits", Costs(sample_s=1.0, waiting_share=0.5), devices_per_node=4)
    found = advice(waits)
    assert found[0].setting.name in ("experiment", "elastic")
    assert by_name(found)["data"].elapsed_s == pytest.approx(8 * 10 * 8 / 4 * (1 + 0.5 * 2))
    assert "would take 50% longer" in reason([found[0], by_name(found)["hybrid, 2 each"]], 8)


def test_with_fewer_trials_than_devices_a_trial_has_several():
    found = by_name(advice(trials=1))
    assert found["experiment"].elapsed_s == pytest.approx(80)
    assert found["data"].elapsed_s == pytest.approx(20)
    assert found["data"].setting.params == "tune.allocation=fixed tune.devices_per_trial=4"
    assert found["elastic"].setting.params == "tune.allocation=elastic tune.devices_per_trial=1"


def test_uncertainty_comes_from_the_draws_and_from_the_error_of_the_costs():
    for one in advice(spread=0.5, error=0.1):
        assert one.low_s < 0.9 * one.elapsed_s + 1e-9
        assert one.high_s > 1.1 * one.elapsed_s - 1e-9


def test_how_many_trials_fit():
    """A trial takes 80 s on one device: an hour has 45 of them on each of four."""
    found = by_name(advice(hours=1.0))
    assert found["experiment"].fits == 4 * 45
    assert found["data"].fits == 180
    assert by_name(advice(hours=79 / 3600))["experiment"].fits == 0


def test_a_batch_says_what_can_be_had():
    assert [one.name for one in settings_for(16, Workload(8, 0, batch_size=2))] == [
        "experiment",
        "hybrid, 2 each",
        "elastic",
    ]
    per_replica = settings_for(4, Workload(8, 0, 2, "per_replica_batch"))
    assert [one.name for one in per_replica] == ["experiment", "hybrid, 2 each", "data"], "elastic would change it"
    assert [one.name for one in settings_for(1, WORKLOAD)] == ["experiment"]


@given(
    devices=st.integers(1, 12),
    trials=st.integers(1, 16),
    batch=st.sampled_from([1, 2, 6, 8]),
    spread=st.sampled_from([0.0, 0.3]),
    waiting=st.floats(0, 0.5),
)
def test_the_first_is_the_quickest_and_none_is_quicker_than_its_devices_allow(devices, trials, batch, spread, waiting):
    costs = CostSet("some", Costs(sample_s=1.0, waiting_share=waiting, start_s=3.0, restart_s=5.0), devices_per_node=4)
    found = advice(costs, devices, trials, Workload(8, 2, batch), epochs=3, spread=spread)
    shortest_s = min(one.elapsed_s for one in found)
    assert found[0].elapsed_s <= 1.01 * shortest_s + 1e-9
    single_s = advice(costs, 1, trials, Workload(8, 2, batch), epochs=3, spread=spread)[0].elapsed_s
    for one in found:
        assert one.low_s <= one.elapsed_s <= one.high_s
        assert one.elapsed_s >= single_s / devices - 1e-6
        assert one.elapsed_s * devices >= one.device_hours * 3600 - 1e-6
    assert reason(found, trials).startswith(found[0].setting.name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"devices": 0}, "--devices must be at least 1, got 0"),
        ({"trials": 0}, "--trials must be at least 1, got 0"),
        ({"hours": 0.0}, "--hours must be more than 0, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(MisError, match=message):
        advice(**given)
