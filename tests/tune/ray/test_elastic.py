"""Trials that get devices of others, on the Ray cluster that all tests share."""

import pytest

from mis.track.names import DEVICES, RESTARTS, TRAIN_LOSS, VAL_DICE
from mis.tune import elastic
from mis.tune.trial import TrialState
from tests.tune.ray.conftest import LEARNING_RATE, NO_SCHEDULER

pytestmark = pytest.mark.slow

RATES = (4e-3, 3e-3, 1e-3, 5e-3)  # with group norm the best is the last, which the scheduler never stops
ASHA = {"name": "asha", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 1}
SEARCH = {
    "starts": [{"train.learning_rate": rate} for rate in RATES],
    "devices": 2,
    "tune__num_samples": len(RATES),
    "tune__epochs": 10,
    "model__norm": "group",
    "tune__space": LEARNING_RATE,
    "train__patience": 99,
    "train__batch_size": 2,
}


def test_idle_devices_join_a_running_trial_whose_losses_stay_the_same(search, monkeypatch):
    # Trainings of seconds gain less from another device than a restart is taken to cost.
    monkeypatch.setattr(elastic, "RESTART_COST_S", 0.0)
    monkeypatch.setattr(elastic, "UNMEASURED", elastic.Speeds(per_doubling=1.0))
    trials, tracker = search(**SEARCH, tune__scheduler=ASHA, tune__allocation="elastic")
    fixed, _ = search(**SEARCH, tune__scheduler=NO_SCHEDULER)

    assert trials[2].state is TrialState.STOPPED, "the worst of three, as without other devices"
    devices = [[epoch[DEVICES] for epoch in trial.history] for trial in trials]
    assert {*devices[0]} == {1.0}, "while others wait a trial has one device"
    assert devices[3][0] == 1.0
    assert devices[3][-1] == 2.0, "the last one is alone in the end"
    assert tracker.runs[0].metrics[RESTARTS][-1][1] >= 1
    for trial, other in zip(trials, fixed, strict=True):
        for epoch, undisturbed in zip(trial.history, other.history, strict=False):
            for name in (TRAIN_LOSS, VAL_DICE):
                assert epoch[name] == pytest.approx(undisturbed[name], rel=1e-4, abs=1e-5)
