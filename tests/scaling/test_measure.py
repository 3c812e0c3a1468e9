"""The comparison on a real Ray cluster, with real trainings, small."""

import time

import pytest

from mis.scaling.measure import measure_round
from mis.train.allocate import allocate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(nodes, records, tiny_params):
    small = tiny_params.override({"model.norm": "none", "train.epochs": 1})
    trials = [small.override({"train.learning_rate": rate}) for rate in (1e-3, 3e-3, 1e-2)]
    shares = {count: allocate(nodes, count) for count in (1, 2)}
    begun = time.monotonic()
    measurements = list(measure_round([1, 2], 0, trials, records.folder, shares))
    return measurements, time.monotonic() - begun


def test_every_cell_runs_every_trial(measured):
    measurements, _ = measured
    assert [(measurement.cell.mode, measurement.cell.workers) for measurement in measurements] == [
        ("experiment", 1),
        ("experiment", 2),
        ("data", 2),
    ]
    for measurement in measurements:
        assert [trial.trial for trial in measurement.trials] == [0, 1, 2]


def test_elapsed_time_has_all_trials_and_no_start_of_processes(measured):
    measurements, wall_s = measured
    # The two cells with a single device for each process share their processes.
    assert measurements[0].startup_s == measurements[1].startup_s > 0
    assert (
        sum(measurement.elapsed_s for measurement in measurements)
        + measurements[0].startup_s
        + measurements[2].startup_s
        <= wall_s
    )
    for measurement in measurements:
        assert min(trial.begin_s for trial in measurement.trials) < 0.1 * measurement.elapsed_s
        busy_s = sum(trial.end_s - trial.begin_s for trial in measurement.trials)
        # No process is idle for long between two trials, and none has two trials at once.
        assert 0.75 * measurement.elapsed_s <= busy_s <= measurement.cell.processes * measurement.elapsed_s
        assert all(0 < trial.epoch_s < trial.end_s - trial.begin_s for trial in measurement.trials)


def test_as_many_trials_at_once_as_there_are_processes(measured):
    measurements, _ = measured
    for measurement in measurements:
        for trial in measurement.trials:
            at_once = sum(other.begin_s <= trial.begin_s < other.end_s for other in measurement.trials)
            assert at_once <= measurement.cell.processes
    experiment = next(measurement for measurement in measurements if measurement.cell.processes == 2)
    first, second, third = experiment.trials
    assert second.begin_s < first.end_s  # at once
    assert third.begin_s >= min(first.end_s, second.end_s)  # as soon as a process is free


def test_both_modes_compute_the_same(measured):
    measurements, _ = measured
    for scores in zip(*([trial.dice for trial in measurement.trials] for measurement in measurements), strict=True):
        assert max(scores) - min(scores) < 1e-4
