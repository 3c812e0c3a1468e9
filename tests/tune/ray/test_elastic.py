"""Trials that get devices of others, on the Ray cluster that all tests share."""

import pytest

from mis.track.names import DEVICES, TRAIN_LOSS, VAL_DICE
from mis.tune import elastic
from tests.tune.ray.conftest import NO_SCHEDULER

pytestmark = pytest.mark.slow

SPACE = {"train.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}}
SEARCH = {
    "tune__num_samples": 3,
    "tune__epochs": 4,
    "tune__space": SPACE,
    "tune__sampler": {"name": "random", "seed": 1},
    "train__patience": 99,
    "train__batch_size": 2,
}


def test_idle_devices_join_a_running_trial_whose_losses_stay_the_same(search, monkeypatch):
    monkeypatch.setattr(elastic, "RESTART_COST_S", 0.0)  # else no restart pays for trainings of seconds
    monkeypatch.setattr(elastic, "UNMEASURED", elastic.Speeds(per_doubling=1.0))
    fixed, _ = search(devices=2, tune__scheduler=NO_SCHEDULER, **SEARCH)
    trials, _ = search(devices=2, tune__scheduler=NO_SCHEDULER, tune__allocation="elastic", **SEARCH)
    assert [trial.values for trial in trials] == [trial.values for trial in fixed]
    devices = [[epoch[DEVICES] for epoch in trial.history] for trial in trials]
    assert 2.0 in devices[-1], "the last trial is alone at the end"
    for trial, other in zip(trials, fixed, strict=True):
        for epoch, undisturbed in zip(trial.history, other.history, strict=True):
            for name in (TRAIN_LOSS, VAL_DICE):
                assert epoch[name] == pytest.approx(undisturbed[name], rel=1e-4, abs=1e-5)
