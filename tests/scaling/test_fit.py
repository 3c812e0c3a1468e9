"""The fit finds the costs that made the observations, and says what they cannot tell."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.errors import MisError
from mis.scaling.costs import Costs, Load, all_reduce_s, compact_place, epoch_terms, start_s
from mis.scaling.fit import fit
from mis.scaling.observations import Observation
from mis.scaling.workload import Workload

WORKLOAD = Workload(cases=64, validation_cases=16, batch_size=8)
TRUE = Costs(
    step_s=0.02,
    sample_s=0.3,
    validation_sample_s=0.1,
    waiting_share=0.05,
    gradient_bytes=4e6,
    within_latency_s=1e-3,
    within_bytes_per_s=1e9,
    between_latency_s=1e-3,
    between_bytes_per_s=1e9,
    epoch_s=1.5,
    start_s=12.0,
    start_per_device_s=2.0,
)


def observed(costs, devices, batch_size=8, name="study/000"):
    """Return what a training with these costs would measure."""
    workload = Workload(WORKLOAD.cases, WORKLOAD.validation_cases, batch_size)
    place = compact_place(devices, (devices,))
    terms, steps = epoch_terms(costs, workload, place, Load(devices, devices)), workload.steps(devices)
    step_s = (terms.computing_s + terms.waiting_s + terms.all_reduce_s + terms.input_s) / steps
    return Observation(
        name=name,
        devices=devices,
        batch_size=batch_size,
        step_s=step_s,
        input_share=terms.input_s / steps / step_s,
        communication_share=all_reduce_s(costs, place) / step_s,
        epoch_s=terms.total_s,
        start_s=start_s(costs, devices),
        weights=1e6,
    )


FULL = [(1, 8), (1, 4), (2, 8), (4, 8), (8, 8)]


def test_runs_that_tell_everything_give_the_costs_back():
    fitted = fit([observed(TRUE, *run) for run in FULL], WORKLOAD, sample_bytes=7.0, restart_s=20.0)
    costs = fitted.costs.costs
    told = ("step_s", "sample_s", "validation_sample_s", "waiting_share", "epoch_s", "start_s", "start_per_device_s")
    for name in (*told, "gradient_bytes", "within_latency_s", "within_bytes_per_s"):
        assert getattr(costs, name) == pytest.approx(getattr(TRUE, name), rel=1e-3), name
    assert (costs.sample_bytes, costs.restart_s) == (7.0, 20.0)
    assert fitted.largest_error < 1e-3
    assert fitted.spread < 1e-3
    assert set(fitted.untold) >= {"between_latency_s", "between_bytes_per_s", "shared_bytes_per_s"}
    assert "restart_s" not in fitted.untold


@given(st.floats(1e-3, 2), st.floats(1e-3, 10), st.floats(0, 5), st.floats(0, 60))
def test_any_costs_on_one_and_two_devices_fit_without_residual(sample_s, validation_s, fixed_s, starts_s):
    costs = Costs(sample_s=sample_s, validation_sample_s=validation_s, epoch_s=fixed_s, start_s=starts_s)
    fitted = fit([observed(costs, devices) for devices in (1, 2)], WORKLOAD, sample_bytes=1.0)
    assert fitted.costs.costs.sample_s == pytest.approx(sample_s)
    assert fitted.largest_error < 1e-5


def test_one_run_on_one_device_leaves_the_rest_to_assumptions():
    fitted = fit([observed(TRUE, 1)], WORKLOAD, sample_bytes=1.0)
    assert fitted.largest_error < 1e-6
    reasons = fitted.untold
    assert reasons["step_s"] == "no runs with two sizes of the batch: all of a step is counted to its cases"
    assert reasons["waiting_share"] == "no runs on one device and on several"
    assert reasons["within_latency_s"] == "no runs on several devices"
    assert reasons["restart_s"] == "no elastic study has had a restart"
    assert fitted.costs.origins["sample_s"].source == "fitted"


def test_a_wait_for_input_becomes_a_bandwidth():
    slow = Costs(sample_s=0.1, sample_bytes=1e6, node_bytes_per_s=2e6)
    fitted = fit([observed(slow, 1)], WORKLOAD, sample_bytes=1e6)
    assert fitted.costs.costs.node_bytes_per_s == pytest.approx(2e6)
    assert fitted.costs.costs.sample_s == pytest.approx(0.1)
    quick = fit([observed(Costs(sample_s=0.1), 1)], WORKLOAD, sample_bytes=1e6)
    assert quick.costs.costs.node_bytes_per_s == float("inf")
    assert "at most 0.0% of a step" in quick.untold["node_bytes_per_s"]


def test_the_bandwidth_of_a_node_is_that_of_all_trainings_that_ran_at_once():
    slow = Costs(sample_s=0.1, sample_bytes=1e6, node_bytes_per_s=8e6)
    workload = Workload(WORKLOAD.cases, WORKLOAD.validation_cases, 8)
    place = compact_place(1, (4,))
    terms, steps = epoch_terms(slow, workload, place, Load(4, 4)), workload.steps(1)
    seen = replace(
        observed(slow, 1),
        step_s=(terms.computing_s + terms.input_s) / steps,
        input_share=terms.input_s / (terms.computing_s + terms.input_s),
        epoch_s=terms.total_s,
        at_once=4,
    )
    fitted = fit([seen], WORKLOAD, sample_bytes=1e6, devices_per_node=4)
    assert fitted.costs.costs.node_bytes_per_s == pytest.approx(8e6)
    assert fitted.largest_error == pytest.approx(0.0, abs=1e-9)


def test_trials_that_are_unlike_show_as_residuals_and_as_a_spread():
    quick, slow = Costs(sample_s=0.1), Costs(sample_s=0.2)
    fitted = fit([observed(quick, 1), observed(slow, 1)], WORKLOAD, sample_bytes=1.0)
    first, second = fitted.residuals
    assert (first.fitted_s, second.fitted_s) == (pytest.approx(0.15 * 64), pytest.approx(0.15 * 64))
    assert (first.error, second.error) == (pytest.approx(0.5), pytest.approx(-0.25))
    assert fitted.median_error == pytest.approx(0.375)
    assert fitted.spread == pytest.approx(0.3466, abs=1e-4)  # half of ln 2


def test_without_runs_there_is_no_fit():
    with pytest.raises(MisError, match="at least one finished training, got none"):
        fit([], WORKLOAD, sample_bytes=1.0)
