from math import inf, nan

import pytest

from mis.tune.console.progress import Heard, Progress
from mis.tune.trial import Trial, TrialState


def progress(*known, total=24, concurrent=2, epochs=8, ends_at=inf, **others):
    """Return a search with trials, each with when and what was heard of it; None for one of an earlier session."""
    trials = {trial.number: trial for trial, _ in known}
    heard = {trial.number: heard for trial, heard in known if heard is not None}
    return Progress("one", total, concurrent, epochs, 0.0, ends_at, trials, heard, **others)


def scored(best):
    return {} if best is None else {"val/dice": best}


def ended(number, seconds=40.0, best=0.5, state=TrialState.COMPLETED, epoch_s=5.0):
    trial = Trial(number, {}, state, epochs=8, last=scored(best), best=scored(best), elapsed_s=seconds)
    return trial, None if epoch_s is None else Heard(100.0, epoch_s)


def running(number, epochs, epoch_s, heard_at=100.0, best=None):
    return Trial(number, {}, epochs=epochs, last=scored(best), best=scored(best)), Heard(heard_at, epoch_s)


# ---- Time left ----


def test_nothing_is_estimated_before_the_first_epoch():
    assert progress().seconds_left(100) is None
    assert progress(running(0, 0, None), ends_at=3600).seconds_left(100) is None


def test_before_a_trial_has_ended_the_running_ones_tell():
    # 6 epochs of 10 s, less the 4 s since its last word; 2 more trials of 8 epochs beside each other.
    one = progress(running(0, 2, 10.0, heard_at=96.0), total=3, concurrent=2)
    assert one.seconds_left(100) == 56 + 80  # 000 ends after 56 s, the second after 80 s, the third after 56 + 80 s


def test_trials_to_begin_take_the_mean_of_those_that_ended():
    # The mean of 40 s and 20 s is 30 s. 002 ends after 3 * 5 = 15 s, 003 after 30 s. 4 begin: at 15 s,
    # 30 s, 45 s and 60 s.
    one = progress(
        ended(0, 40), ended(1, 20, state=TrialState.STOPPED), running(2, 5, 5.0), running(3, 2, 5.0), total=8
    )
    assert one.seconds_left(100) == 90


def test_a_trial_before_its_first_epoch_takes_the_mean_less_what_it_has_had():
    one = progress(ended(0, 40), running(1, 0, None, heard_at=90), total=2)
    assert one.seconds_left(100) == 30
    assert one.seconds_left(500) == 0


def test_more_trials_in_turn_than_places():
    """With HyperBand, trials that are paused count as running."""
    one = progress(*(running(number, 6, 5.0) for number in range(4)), total=4, concurrent=2)
    assert one.seconds_left(100) == 20


def test_neither_earlier_trials_nor_failures_at_once_tell_how_long_one_takes():
    earlier, dead = ended(0, 1000, epoch_s=None), (Trial(1, {}, TrialState.FAILED, elapsed_s=1.0), Heard(100.0))
    assert progress(earlier, dead).seconds_left(100) is None
    assert progress(earlier, dead, ended(2, 40), total=5, concurrent=2).seconds_left(100) == 40


def test_a_budget_ends_it_earlier():
    trials = ended(0, 40), running(1, 0, None)
    assert progress(*trials, ends_at=150).seconds_left(100) == 50
    assert progress(*trials, ends_at=150).seconds_left(151) == 0
    assert progress(*trials, total=2, ends_at=1e6).seconds_left(100) == 40


def test_without_a_total_only_a_budget_tells():
    assert progress(ended(0), running(1, 0, None), total=None).seconds_left(100) is None
    assert progress(ended(0), running(1, 0, None), total=None, ends_at=150).seconds_left(100) == 50


def test_nothing_is_left_of_a_search_that_is_over():
    assert progress(ended(0), total=1).seconds_left(100) is None
    assert progress(ended(0), running(1, 1, 5.0)).leave().seconds_left(100) is None


# ---- The best ----


def test_the_best_is_the_earliest_of_equals_running_or_not():
    one = progress(ended(0, best=0.4), running(1, 1, 5.0, best=0.6), ended(2, best=0.6))
    assert one.best.number == 1
    assert [trial.number for trial in one.ended] == [2, 0]


@pytest.mark.parametrize("dice", [nan, None])
def test_no_number_is_never_the_best(dice):
    assert progress(ended(0, best=dice)).best is None
    one = progress(ended(0, best=dice), ended(1, best=0.0))
    assert one.best.number == 1
    assert [trial.number for trial in one.ended] == [1, 0]


# ---- Trials ----


def test_a_trial_takes_the_place_of_what_was_known_of_it_in_a_new_search():
    before = progress(running(0, 1, 5.0), running(1, 1, 5.0))
    after = before.put(*running(0, 2, 5.0))
    assert list(after.trials) == [0, 1]
    assert (before.trials[0].epochs, after.trials[0].epochs) == (1, 2)


def test_what_runs_when_it_is_left_is_interrupted():
    left = progress(ended(0), running(1, 1, 5.0)).leave()
    assert left.over
    assert {number: trial.state for number, trial in left.trials.items()} == {
        0: TrialState.COMPLETED,
        1: TrialState.INTERRUPTED,
    }
    assert (len(left.running), len(left.interrupted), len(left.ended)) == (0, 1, 1)
