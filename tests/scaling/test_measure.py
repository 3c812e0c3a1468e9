"""The comparison on a real Ray cluster, with real trainings, small."""

import pytest

from mis.scaling.measure import measure_round
from mis.train.allocate import allocate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(nodes, records, tiny_params):
    rates = (1e-3, 3e-3, 1e-2)
    trials = [tiny_params.override({"train.learning_rate": rate, "train.epochs": 2}) for rate in rates]
    shares = {count: allocate(nodes, count) for count in (1, 2)}
    return list(measure_round([1, 2], 0, trials, records.folder, shares))


def test_every_cell_runs_every_trial(measured):
    assert [(one.cell.mode, one.cell.workers) for one in measured] == [
        ("experiment", 1),
        ("experiment", 2),
        ("data", 2),
    ]
    for one in measured:
        assert [trial.trial for trial in one.trials] == [0, 1, 2]


def test_elapsed_time_is_from_the_first_start_to_the_last_end(measured):
    for one in measured:
        assert max(trial.end_s for trial in one.trials) <= one.elapsed_s
        assert min(trial.begin_s for trial in one.trials) < 0.5
        assert one.startup_s > 0


def test_as_many_trials_at_once_as_there_are_processes(measured):
    for one in measured:
        for trial in one.trials:
            at_once = sum(other.begin_s <= trial.begin_s < other.end_s for other in one.trials)
            assert at_once <= one.cell.processes
    experiment = next(one for one in measured if one.cell.processes == 2)
    first, second, third = experiment.trials
    assert second.begin_s < first.end_s  # at once
    assert third.begin_s >= min(first.end_s, second.end_s)  # as soon as one is free


def test_both_modes_compute_the_same(measured):
    for scores in zip(*([trial.dice for trial in one.trials] for one in measured), strict=True):
        assert max(scores) - min(scores) < 1e-4
