"""Which runs are taken for a fit, and what is read from them."""

import pytest

from mis.scaling.observations import observe, observed_restart_s
from mis.track.base import TRAIN, TUNE
from mis.track.memory import MemoryTracker
from mis.track.names import CONCURRENT_TRIALS, KIND_TAG, RECORDS_TAG, STATE_TAG, STUDY_TAG, TRACING_S, TRIAL_TAG

MEASURED = {
    "time/step_s": 0.5,
    "time/epoch_s": 6.0,
    "time/input_share": 0.1,
    "time/communication_share": 0.2,
    "time/devices": 2.0,
    "time/total_s": 50.0,
    "time/trial_s": 54.0,
    "model/parameters": 1000.0,
}


@pytest.fixture
def tracker():
    return MemoryTracker()


def add(tracker, params, *, experiment=TUNE, tags=(), metrics=(), **values):
    own = {STUDY_TAG: "before", TRIAL_TAG: "003", RECORDS_TAG: "records", STATE_TAG: "completed"} | dict(tags)
    changed = {name.replace("__", "."): value for name, value in values.items()}
    given = {**params.flatten(), "train.epochs": 8, "in_force.global_batch_size": 4, **changed}
    run = tracker.start_run(experiment, "trial", params=given, tags=own)
    run.log_metrics({**MEASURED, **dict(metrics)}, 8)
    run.finish()


def test_a_trial_of_a_search(tracker, params):
    add(tracker, params)
    (seen,) = observe(params, tracker, "records")
    assert (seen.name, seen.devices, seen.batch_size, seen.weights) == ("before/003", 2, 4, 1000.0)
    assert (seen.step_s, seen.input_share, seen.communication_share, seen.epoch_s) == (0.5, 0.1, 0.2, 6.0)
    assert seen.start_s == (54 - 50) + (50 - 8 * 6)


def test_the_start_of_a_trial_that_was_stopped_early_has_its_tracing(tracker, params):
    add(
        tracker,
        params,
        tags={STATE_TAG: "stopped"},
        metrics={TRACING_S: 3.0, "time/total_s": 15.0, "time/trial_s": 17.0},
    )
    (seen,) = observe(params, tracker, "records")
    assert seen.start_s == 2 + 3


def test_a_trial_that_was_stopped_in_its_first_epoch_tells_of_tracing_alone(tracker, params):
    add(tracker, params, tags={STATE_TAG: "stopped"})
    assert observe(params, tracker, "records") == []


def test_how_many_ran_at_once_is_the_studys(tracker, params):
    study = tracker.start_run(TUNE, "before", tags={STUDY_TAG: "before", KIND_TAG: "study"})
    study.log_metrics({CONCURRENT_TRIALS: 4.0})
    study.finish()
    add(tracker, params)
    add(tracker, params, tags={STUDY_TAG: "another"})
    assert sorted(seen.at_once for seen in observe(params, tracker, "records")) == [1, 4]


@pytest.mark.parametrize(
    "values",
    [
        {"train__learning_rate": 0.9, "train__batch_size": 64},
        {"model__norm": "batch"},  # searched
        {"tune__num_samples": 99},
    ],
)
def test_what_takes_as_long_is_alike(tracker, params, values):
    add(tracker, params, **values)
    assert len(observe(params, tracker, "records")) == 1


@pytest.mark.parametrize(
    "values", [{"model__base_filters": 64}, {"train__precision": "mixed_bfloat16"}, {"data__crop": "none"}]
)
def test_what_takes_another_time_is_not(tracker, params, values):
    add(tracker, params, **values)
    assert observe(params, tracker, "records") == []


def test_other_records_and_runs_without_times_are_left_out(tracker, params):
    add(tracker, params, tags={RECORDS_TAG: "others"})
    tracker.start_run(TUNE, "study", params=params.flatten(), tags={KIND_TAG: "study"}).finish()
    assert observe(params, tracker, "records") == []


def test_a_training_by_itself_counts_on_gpus_alone(tracker, params):
    add(tracker, params, experiment=TRAIN)
    assert observe(params, tracker, "records") == []
    add(tracker, params, experiment=TRAIN, tags={"mis.gpus": "2 x V100"})
    assert len(observe(params, tracker, "records")) == 1


def test_the_start_of_an_elastic_trial_is_not_known(tracker, params):
    add(tracker, params, tune__allocation="elastic")
    assert observe(params, tracker, "records")[0].start_s is None


def test_restarts_come_from_studies_that_had_some(tracker):
    assert observed_restart_s(tracker) is None
    for restarts, seconds in ((0.0, 30.0), (2.0, 8.0), (1.0, 12.0)):
        run = tracker.start_run(TUNE, "study", tags={KIND_TAG: "study"})
        run.log_metrics({"elastic/restarts": restarts, "elastic/restart_s": seconds})
        run.finish()
    assert observed_restart_s(tracker) == 10.0
