import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.train.clocks import MOST_S, Offset, Reading, judge_clocks, offset

seconds = st.floats(0, 1000)


@given(st.floats(-1e5, 1e5), st.lists(st.tuples(seconds, seconds, seconds), min_size=1, max_size=5))
def test_an_offset_is_within_its_bounds_however_long_questions_and_answers_take(ahead_s, journeys):
    now, readings = 1e6, []
    for there_s, back_s, pause_s in journeys:
        readings.append(Reading(now, now + there_s + ahead_s, now + there_s + back_s))
        now += there_s + back_s + pause_s
    bounds = offset(readings)
    assert bounds.low_s - 1e-6 <= ahead_s <= bounds.high_s + 1e-6
    assert bounds.high_s - bounds.low_s <= min(there + back for there, back, _ in journeys) + 1e-6


@given(st.floats(-MOST_S, MOST_S), st.lists(st.tuples(seconds, seconds), min_size=1, max_size=5))
def test_no_clock_that_differs_by_less_than_it_may_is_named_however_slow_the_cluster_is(ahead_s, journeys):
    readings = [Reading(0.0, there + ahead_s, there + back) for there, back in journeys]
    bounds = offset(readings)
    assert judge_clocks({"node-2": bounds}, most_s=MOST_S + 1e-6) == []


@pytest.mark.parametrize(("ahead_s", "said"), [(7.0, "7.0 s ahead"), (-3600.0, "3600.0 s behind")])
def test_a_clock_that_differs_is_named_with_its_node_and_at_least_by_how_much(ahead_s, said):
    bounds = offset([Reading(0.0, 0.0 + ahead_s, 30.0), Reading(40.0, 40.1 + ahead_s, 40.1)])
    found = judge_clocks({"node-1": Offset(-0.1, 0.1), "node-2": bounds})
    assert [diagnosis.mark for diagnosis in found] == ["warning"]
    assert "node-2" in found[0].found
    assert said in found[0].found
    assert "NTP" in found[0].do
