"""The order of the sessions of a run: every pair of sessions, on clocks that agree and on clocks that do not."""

import pytest

from mis.track.names import OPENED_TAG, SESSION_TAG
from mis.track.sessions import is_overtaken, opened_tags

FIRST, SECOND = {"mis.pid": "1"}, {"mis.pid": "2"}


def opened(tags, process, at_ms):
    """Return a run's tags after a process has opened it."""
    return tags | process | opened_tags(tags, process, at_ms)


@pytest.mark.parametrize("ahead_ms", [-5000, 0, 5000])
def test_the_last_that_was_delivered_by_its_own_process_counts_whatever_the_clocks_say(ahead_ms):
    tags = opened({}, FIRST, 10_000 + ahead_ms)
    assert not is_overtaken(tags, SECOND, 10_500, 10_500)
    tags = opened(tags, SECOND, 10_500)
    assert is_overtaken(tags, FIRST, 10_000 + ahead_ms)
    assert not is_overtaken(tags, SECOND, 10_500)


def test_what_has_waited_while_another_session_began_is_overtaken():
    tags = opened({}, SECOND, 2000)
    assert is_overtaken(tags, FIRST, 1000)
    assert is_overtaken(tags, FIRST, 1000, 3000)


def test_delivered_again_a_session_changes_nothing():
    tags = opened(opened({}, FIRST, 9000), SECOND, 2000)
    assert opened(tags, SECOND, 2000) == tags
    assert not is_overtaken(tags, SECOND, 2000)


def test_an_earlier_session_of_the_same_process_is_overtaken_and_a_later_one_is_not():
    tags = opened(opened({}, FIRST, 9000), SECOND, 2000)
    assert is_overtaken(tags, SECOND, 1000)
    assert is_overtaken(tags, SECOND, 1000, 3000)
    assert not is_overtaken(tags, SECOND, 3000, 3000)
    assert int(opened(tags, SECOND, 3000)[OPENED_TAG]) > int(tags[OPENED_TAG]) > 9000


def test_a_run_of_an_earlier_version_has_one_time():
    tags = {**FIRST, OPENED_TAG: "2000"}
    assert is_overtaken(tags, FIRST, 1000)
    assert not is_overtaken(tags, FIRST, 2000)
    assert is_overtaken(tags, SECOND, 1000)
    assert opened_tags(tags, FIRST, 2000) == {OPENED_TAG: "2000", SESSION_TAG: "2000"}


def test_a_run_that_was_never_opened_is_overtaken_by_nobody():
    assert not is_overtaken({}, FIRST, 1000)
    assert opened_tags({}, FIRST, 1000) == {OPENED_TAG: "1000", SESSION_TAG: "1000"}


def test_a_process_whose_start_is_read_otherwise_after_its_clock_was_set_is_the_same():
    process = {"mis.pid": "1", "mis.started_ticks": "7", "mis.started": "100.0"}
    tags = opened({}, process, 2000)
    assert is_overtaken(tags, process | {"mis.started": "160.0"}, 1000, 1500) is False, "the clock was set back"
    assert not is_overtaken(tags, process | {"mis.started": "160.0"}, 2000)
