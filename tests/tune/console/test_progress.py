from math import inf, nan

import pytest

from mis.tune.console.progress import INTERRUPTED, Progress, Row


def progress(*rows, total=24, concurrent=2, epochs=8, ends_at=inf, **others):
    return Progress("one", total, concurrent, epochs, 0.0, ends_at, {row.name: row for row in rows}, **others)


def ended(name, seconds=40.0, best=0.5, state="completed", epoch_s=5.0):
    return Row(name, {}, state, epochs=8, best=best, seconds=seconds, epoch_s=epoch_s)


def running(name, epochs, epoch_s, heard_at=100.0, best=None):
    return Row(name, {}, epochs=epochs, epoch_s=epoch_s, heard_at=heard_at, best=best)


# ---- Time left ----


def test_nothing_is_estimated_before_the_first_epoch():
    assert progress().seconds_left(100) is None
    assert progress(running("000", 0, None), ends_at=3600).seconds_left(100) is None


def test_before_a_trial_has_ended_the_running_ones_tell():
    # 6 epochs of 10 s, less the 4 s since its last word; 2 more trials of 8 epochs beside each other.
    one = progress(running("000", 2, 10.0, heard_at=96.0), total=3, concurrent=2)
    assert one.seconds_left(100) == 56 + 80  # 000 ends after 56 s, the second after 80 s, the third after 56 + 80 s


def test_trials_to_begin_take_the_mean_of_those_that_ended():
    # The mean of 40 s and 20 s is 30 s. 002 ends after 3 * 5 = 15 s, 003 after 30 s. 4 begin: at 15 s,
    # 30 s, 45 s and 60 s.
    one = progress(
        ended("000", 40), ended("001", 20, state="stopped"), running("002", 5, 5.0), running("003", 2, 5.0), total=8
    )
    assert one.seconds_left(100) == 90


def test_a_trial_before_its_first_epoch_takes_the_mean_less_what_it_has_had():
    one = progress(ended("000", 40), running("001", 0, None, heard_at=90), total=2)
    assert one.seconds_left(100) == 30
    assert one.seconds_left(500) == 0


def test_more_trials_in_turn_than_places():
    """With HyperBand, trials that are paused count as running."""
    one = progress(*(running(f"00{number}", 6, 5.0) for number in range(4)), total=4, concurrent=2)
    assert one.seconds_left(100) == 20


def test_neither_earlier_trials_nor_failures_at_once_tell_how_long_one_takes():
    earlier, dead = ended("000", 1000, epoch_s=None), Row("001", {}, "failed", seconds=1.0)
    assert progress(earlier, dead).seconds_left(100) is None
    assert progress(earlier, dead, ended("002", 40), total=5, concurrent=2).seconds_left(100) == 40


def test_a_budget_ends_it_earlier():
    trials = ended("000", 40), running("001", 0, None)
    assert progress(*trials, ends_at=150).seconds_left(100) == 50
    assert progress(*trials, ends_at=150).seconds_left(151) == 0
    assert progress(*trials, total=2, ends_at=1e6).seconds_left(100) == 40


def test_without_a_total_only_a_budget_tells():
    assert progress(ended("000"), running("001", 0, None), total=None).seconds_left(100) is None
    assert progress(ended("000"), running("001", 0, None), total=None, ends_at=150).seconds_left(100) == 50


def test_nothing_is_left_of_a_search_that_is_over():
    assert progress(ended("000"), total=1).seconds_left(100) is None
    assert progress(ended("000"), running("001", 1, 5.0)).leave().seconds_left(100) is None


# ---- The best ----


def test_the_best_is_the_earliest_of_equals_running_or_not():
    one = progress(ended("000", best=0.4), running("001", 1, 5.0, best=0.6), ended("002", best=0.6))
    assert one.best.name == "001"
    assert [row.name for row in one.ended] == ["002", "000"]


@pytest.mark.parametrize("dice", [nan, None])
def test_no_number_is_never_the_best(dice):
    assert progress(ended("000", best=dice)).best is None
    one = progress(ended("000", best=dice), ended("001", best=0.0))
    assert one.best.name == "001"
    assert [row.name for row in one.ended] == ["001", "000"]


# ---- Rows ----


def test_a_row_takes_the_place_of_the_one_of_its_name_in_a_new_search():
    before = progress(running("000", 1, 5.0), running("001", 1, 5.0))
    after = before.put(running("000", 2, 5.0))
    assert list(after.rows) == ["000", "001"]
    assert (before.rows["000"].epochs, after.rows["000"].epochs) == (1, 2)


def test_what_runs_when_it_is_left_is_interrupted():
    left = progress(ended("000"), running("001", 1, 5.0)).leave()
    assert left.over
    assert {name: row.state for name, row in left.rows.items()} == {"000": "completed", "001": INTERRUPTED}
    assert (len(left.running), len(left.interrupted), len(left.ended)) == (0, 1, 1)
