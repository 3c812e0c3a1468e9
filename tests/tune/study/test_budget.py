import pytest

from mis.tune.study.budget import Budget


@pytest.fixture
def clock(clock):
    """A clock that did not begin with the study."""
    clock.now = 100.0
    return clock


def budget(params, clock, **values):
    tune = params.override({f"tune.{name}": value for name, value in values.items()}).tune
    return Budget(tune, earlier_s=1800.0, clock=clock)


def test_without_limits_a_study_is_over_when_all_its_trials_have_ended(params, clock):
    study = budget(params, clock)
    study.begin(0)
    study.all_begun = True
    assert (study.is_over, study.is_reached) == (False, False)
    study.end(0)
    study.end(0)
    assert (study.is_over, study.is_reached) == (True, False)


def test_before_all_have_begun_it_is_not_over(params, clock):
    study = budget(params, clock)
    study.begin(0)
    study.end(0)
    assert not study.is_over


def test_hours_count_from_the_first_session(params, clock):
    study = budget(params, clock, hours=1.0)
    assert study.hours_left == 0.5
    clock.now += 1799
    assert study.reached == ""
    clock.now += 2
    assert (study.reached, study.is_over) == ("hours", True)


def test_a_dice_that_was_asked_for_ends_it(params, clock):
    study = budget(params, clock, target_dice=0.8)
    study.note_dice(0.79)
    assert not study.is_reached
    study.note_dice(0.8)
    study.note_dice(0.1)
    assert study.reached == "target_dice"
