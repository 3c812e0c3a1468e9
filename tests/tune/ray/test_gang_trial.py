"""Trials that are spread over two nodes of one device each, with real processes."""

import os
import time

import pytest

from mis.track.base import TUNE
from tests.ray_nodes import TwoNodes
from tests.searches import LEARNING_RATE, OURS, tracker_of

pytestmark = pytest.mark.slow

# So many that the third trial is far from its end when the slower one of the first two ends, however slow its start.
EPOCHS = 16
RATES = (1e-3, 1e-4, 2e-3)
SETS = {
    "tune.sampler": "{name: random, seed: 1}",
    "tune.start.points": [{"train.learning_rate": rate} for rate in RATES],
    "tune.num_samples": len(RATES),
    "tune.epochs": EPOCHS,
    "tune.scheduler.grace_epochs": 1,
    "model.depth": 1,
    "model.base_filters": 4,
    "model.norm": "none",
    "train.batch_size": 2,
    "train.patience": 99,
}

# Trainings of seconds gain less from another device than a restart is taken to cost.
SOURCE = """
import sys
from mis.tune import elastic
from mis.tune.__main__ import main
elastic.RESTART_COST_S = 0.0
elastic.UNMEASURED = elastic.Speeds(per_doubling=1.0)
sys.exit(main(sys.argv[1:]))
"""


def start(warm, project, env, name, **values):
    """Start a search on the cluster of `env`."""
    sets = {**SETS, **{f"tune.{key.replace('__', '.')}": value for key, value in values.items()}}
    options = [LEARNING_RATE, *(f"{key}={value}" for key, value in sets.items())]
    arguments = [part for option in options for part in ("--set", option)]
    own = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    return warm.start("--name", name, *arguments, source=SOURCE, cwd=project, env=own | env)


def search(warm, project, env, name, **values):
    """Run a search on the cluster of `env`, and return what it printed."""
    process = start(warm, project, env, name, **values)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out + err


def histories(project, study, metric):
    """Return a metric of each epoch of each trial of a study, by the trial's learning rate."""
    tracker = tracker_of(project)
    runs = tracker.client.search_runs([tracker.experiment_id(TUNE)], f"tags.`mis.study` = '{study}'")
    return {
        float(run.data.params["train.learning_rate"]): [
            point.value for point in tracker.client.get_metric_history(run.info.run_id, metric)
        ]
        for run in runs
        if "mis.trial" in run.data.tags
    }


def test_a_trial_on_two_nodes_and_one_that_moves_there_have_the_same_losses(warm, project):
    with TwoNodes(cores=1) as cluster:
        search(warm, project, cluster.env, "spread", devices_per_trial=2, scheduler__name="asha")
        printed = search(warm, project, cluster.env, "elastic", allocation="elastic", scheduler__name="none")
    assert "trial 002 goes on with 2 devices" in printed
    devices = {name: histories(project, name, "time/devices") for name in ("spread", "elastic")}
    assert {*devices["spread"][RATES[0]]} == {2.0}
    assert devices["elastic"][RATES[0]] == [1.0] * EPOCHS, "while others run a trial has one device"
    assert devices["elastic"][RATES[2]][0] == 1.0
    assert devices["elastic"][RATES[2]][-1] == 2.0
    spread, elastic = (histories(project, name, "train/loss") for name in ("spread", "elastic"))
    assert len(spread[RATES[1]]) < EPOCHS, "the scheduler stops a trial on two nodes as any other"
    for rate in RATES:
        assert spread[rate] == pytest.approx(elastic[rate][: len(spread[rate])], rel=1e-4)


def test_an_elastic_search_goes_on_when_a_node_is_lost(warm, project):
    with TwoNodes(cores=1) as cluster:
        process = start(
            warm, project, cluster.env, "lost", allocation="elastic", scheduler__name="none", epochs=24, max_failures=3
        )
        while len({path.parent for path in project.glob("checkpoints/tune/lost/trials/*/epoch-*")}) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        cluster.lose_second_node()
        _, err = process.communicate()
    assert process.returncode == 0, err
    found = histories(project, "lost", "train/loss")
    assert {rate: len(losses) for rate, losses in found.items()} == dict.fromkeys(RATES, 24), err
