"""What earlier studies tell a new one."""

import pytest

from mis.errors import MisError
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.track.names import RECORDS_TAG
from mis.tune.history import estimate, starting_points

SPACE = {
    "train.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
    "train.patience": {"type": "int", "low": 2, "high": 8},
    "train.amsgrad": {"type": "choice", "values": [True, False]},
}


@pytest.fixture
def own(params):
    return params.override({"tune.space": SPACE})


@pytest.fixture
def tracker():
    return MemoryTracker()


def add(tracker, params, name, values, *, dice=0.5, study="before", **metrics):
    """Record a trial as the search does."""
    run = tracker.start_run(
        TUNE,
        f"trial-{name}",
        params={**params.flatten(), **values},
        tags={"mis.study": study, "mis.trial": name, RECORDS_TAG: "records"},
    )
    times = {"time/trial_s": 50.0, "time/total_s": 40.0, "time/epoch_s": 10.0}
    run.log_metrics({"best/dice": dice, **times, **metrics}, 4)
    run.finish()
    return run


def named(params, **values):
    return params.override({f"tune.{name.replace('__', '.')}": value for name, value in values.items()})


def test_the_best_of_an_earlier_study_come_first(own, tracker):
    values = [
        {"train.learning_rate": rate, "train.patience": 3, "train.amsgrad": True} for rate in (0.002, 0.004, 0.008)
    ]
    for number, (one, dice) in enumerate(zip(values, (0.4, 0.6, 0.5), strict=True)):
        add(tracker, own, f"{number:03d}", one, dice=dice)
    add(tracker, own, "000", {"train.learning_rate": 0.009}, dice=0.9, study="another")
    assert starting_points(named(own, start__study="before", start__best=2), tracker) == [values[1], values[2]]


def test_without_the_server_given_points_are_enough_and_an_earlier_study_is_refused(own):
    given = [{"train.patience": 5}]
    assert starting_points(named(own, start__points=given), None) == given
    with pytest.raises(MisError, match=r"the study of tune.start.study, before, must be read from MLflow"):
        starting_points(named(own, start__study="before"), None)


def test_given_points_stand_before_them(own, tracker):
    add(tracker, own, "000", {"train.learning_rate": 0.004, "train.patience": 3, "train.amsgrad": False})
    given = {"train.patience": 5}
    first, second = starting_points(named(own, start__study="before", start__points=[given]), tracker)
    assert first == given
    assert second == {"train.learning_rate": 0.004, "train.patience": 3, "train.amsgrad": False}
    assert starting_points(named(own, start__points=[given]), tracker) == [given]


def test_values_outside_the_space_are_left_out_of_a_point(own, tracker):
    add(tracker, own, "000", {"train.learning_rate": 0.5, "train.patience": 4, "train.amsgrad": "maybe"})
    assert starting_points(named(own, start__study="before"), tracker) == [{"train.patience": 4}]


def test_a_value_that_changed_counts_as_it_was_at_the_end(own, tracker):
    run = add(tracker, own, "000", {"train.learning_rate": 0.004, "train.patience": 3, "train.amsgrad": True})
    run.log_params({"train.learning_rate": 0.005})
    (point,) = starting_points(named(own, start__study="before"), tracker)
    assert point["train.learning_rate"] == 0.005


def test_a_trial_that_diverged_is_no_start(own, tracker):
    values = {"train.learning_rate": 0.004, "train.patience": 3, "train.amsgrad": True}
    add(tracker, own, "000", values, dice=0.2)
    add(tracker, own, "001", {**values, "train.patience": 5}, dice=0.9).set_tags({"mis.state": "diverged"})
    assert starting_points(named(own, start__study="before"), tracker) == [values]


def test_a_study_that_tells_nothing_is_refused(own, tracker):
    with pytest.raises(MisError, match="must name a study in MLflow with ended trials, got before"):
        starting_points(named(own, start__study="before"), tracker)
    add(tracker, own, "000", {"train.learning_rate": 0.5, "train.patience": 99, "train.amsgrad": "maybe"})
    with pytest.raises(MisError, match=r"must have values in tune\.space"):
        starting_points(named(own, start__study="before"), tracker)


def test_an_estimate_by_hand(own, tracker):
    """4 epochs of 10 s and 10 s beside them, 5 trials, 2 at once: three rounds."""
    own = named(own, epochs=4)
    assert estimate(own, tracker, "records", 5, 2) is None
    add(tracker, own, "000", {"train.learning_rate": 0.002})
    add(tracker, own, "001", {"train.learning_rate": 0.003, "train.amsgrad": True})
    told = estimate(own, tracker, "records", 5, 2)
    assert (told.seconds, told.trials, told.epoch_s, told.beside_s) == (150.0, 2, 10.0, 10.0)


def test_an_estimate_comes_from_trials_of_the_same_kind_alone(own, tracker):
    add(tracker, own, "000", {"model.base_filters": 32}, **{"time/epoch_s": 99.0})
    add(tracker, own, "001", {"tune.devices_per_trial": 2.0}, **{"time/epoch_s": 99.0})
    assert estimate(own, tracker, "records", 5, 2) is None
    add(tracker, own, "002", {"model.base_filters": own.model.base_filters})
    assert estimate(own, tracker, "other records", 5, 2) is None
    assert estimate(own, tracker, "records", 5, 2).epoch_s == 10.0


def test_an_estimate_asks_for_fixed_values_and_not_for_what_takes_no_time(own, tracker):
    add(tracker, own, "000", {"train.beta_2": 0.5, "train.precision": own.train.precision})
    assert estimate(own, tracker, "records", 1, 1).trials == 1
    fixed = {"train.precision": {"type": "fixed", "value": "mixed_bfloat16"}}
    assert estimate(named(own, space=SPACE | fixed), tracker, "records", 1, 1) is None
