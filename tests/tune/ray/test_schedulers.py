"""Searches whose trials are stopped or changed, on a real Ray cluster."""

import pytest

from tests.tune.ray.conftest import LEARNING_RATE, NO_SCHEDULER

pytestmark = pytest.mark.slow


def test_a_scheduler_stops_the_worse(search):
    trials, tracker = search(
        tune__num_samples=5,
        tune__epochs=4,
        tune__space={"train.learning_rate": {"type": "choice", "values": [1e-9, 1e-2]}},
        tune__scheduler={**NO_SCHEDULER, "name": "asha", "reduction_factor": 4},
    )
    assert "stopped" in {trial.state for trial in trials}
    for trial in trials:
        assert len(trial.history) == 4 if trial.state == "completed" else len(trial.history) < 4
    assert {run.status for run in tracker.runs[1:]} == {"FINISHED"}


@pytest.mark.parametrize("scheduler", ["median", "hyperband"])
def test_other_schedulers_stop_the_worse_too(search, scheduler):
    trials, tracker = search(
        tune__num_samples=6,
        tune__epochs=4,
        tune__space={"train.learning_rate": {"type": "choice", "values": [1e-9, 1e-2]}},
        tune__sampler={"name": "random", "seed": 0},
        tune__scheduler={**NO_SCHEDULER, "name": scheduler},
    )
    assert len(trials) == 6
    assert "stopped" in {trial.state for trial in trials}
    assert {run.status for run in tracker.runs[1:]} == {"FINISHED"}
    children = sorted(tracker.runs[1:], key=lambda run: run.tags["mis.trial"])
    for trial, run in zip(trials, children, strict=True):
        assert [step for step, _ in run.metrics["val/dice"]] == list(range(1, len(trial.history) + 1))


@pytest.mark.parametrize(
    ("budget", "most"), [({"tune__hours": 0.002}, 39), ({"tune__target_dice": 1e-6}, 4)], ids=["time", "target"]
)
def test_a_study_ends_when_its_budget_is_spent(search, budget, most):
    trials, tracker = search(tune__num_samples=40, tune__epochs=3, tune__space=LEARNING_RATE, **budget)
    assert 0 < len(trials) <= most
    assert "RUNNING" not in {run.status for run in tracker.runs[1:]}


def test_a_population_goes_on_from_its_best(search):
    trials, tracker = search(
        devices=2,
        tune__num_samples=4,
        tune__epochs=12,  # so many that whoever begins late is still compared
        train__patience=12,
        tune__sampler={"name": "random", "seed": 3},
        tune__scheduler={**NO_SCHEDULER, "name": "pbt", "interval_epochs": 2},
        tune__space={"train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}},
    )
    assert [(trial.state, len(trial.history)) for trial in trials] == [("completed", 12)] * 4
    assert all(1e-5 <= trial.values["train.learning_rate"] <= 1e-2 for trial in trials)
    children = sorted(tracker.runs[1:], key=lambda run: run.tags["mis.trial"])
    changed = 0
    for trial, run in zip(trials, children, strict=True):
        assert [step for step, _ in run.metrics["val/dice"]] == list(range(1, 13))
        rates = [value for _, value in run.metrics["now/train.learning_rate"]]
        assert str(rates[0]) == run.params["train.learning_rate"]
        assert rates[-1] == trial.values["train.learning_rate"]
        if rates[0] != rates[-1]:
            assert run.tags["mis.changed.train.learning_rate"] == str(rates[-1])
            donors = {value for _, value in run.metrics["now/cloned_from"]}
            assert donors <= {float(other.name) for other in trials if other is not trial}
            changed += 1
    assert changed, "the worst go on from the best"
