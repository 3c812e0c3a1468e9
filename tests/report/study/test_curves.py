import numpy as np
import pytest

from mis.report.study import curves
from mis.report.study.drawable import Drawable
from mis.report.study.from_trials import study_of
from mis.tune.trial import Trial, TrialState


def trial(number, scores, state=TrialState.COMPLETED, **values):
    return Trial(number, values, state).with_history([{"val/dice": score} for score in scores])


TRIALS = [
    trial(0, [0.1, 0.3], rate=1e-3, norm="batch"),
    trial(1, [0.2, 0.4], rate=1e-2, norm="group"),
    trial(2, [0.05], TrialState.STOPPED, rate=2e-2, norm="batch"),
]


def legend(axes):
    return {text.get_text() for text in axes.get_legend().get_texts()}


def drawn(axes):
    return [line.get_ydata().tolist() for line in axes.get_lines() if line.get_linestyle() != "None"]


def test_every_trial_has_a_curve_as_long_as_its_epochs():
    (axes,) = curves.trial_curves(TRIALS).axes
    assert sorted(drawn(axes)) == [[0.05], [0.1, 0.3], [0.2, 0.4]]
    assert legend(axes) == {"best trial", "completed", "stopped early"}
    assert {text.get_text() for text in axes.texts} == {"000", "001", "002"}


@pytest.mark.parametrize(
    ("state", "words"), [(state, words) for state, words in curves.WORDS.items() if state != "best"]
)
def test_every_end_has_a_mark_of_its_own(state, words):
    (axes,) = curves.trial_curves([*TRIALS[:2], trial(2, [0.1], TrialState(state))]).axes
    assert words in legend(axes)
    assert len(set(curves.MARKS.values())) == len(curves.MARKS)
    assert set(curves.MARKS) == set(curves.COLOURS) == {"best", *(state for state in TrialState if state.has_ended)}


def test_trials_as_a_study_have_their_numbers_values_and_states():
    failed = Trial(4, {"rate": 0.5, "norm": "batch"}, TrialState.FAILED)
    study = study_of([*TRIALS, failed])
    assert [known.value for known in study.trials] == [0.3, 0.4, 0.05, None, None]
    assert [known.params for known in study.trials[:3]] == [dict(one.values) for one in TRIALS]
    drawable = Drawable.of(study)
    assert drawable.best.number == 1
    assert [known.number for known in drawable.stopped] == [2]
    assert [known.number for known in drawable.failed] == [3, 4]
    rate = drawable.distribution("rate")
    assert (rate.low, rate.high, rate.log) == (1e-3, 0.5, True)


def test_spread_keeps_the_order_and_the_gap():
    places = [0.5, 0.49, 0.9, 0.5]
    moved = curves.spread(places, 0.1)
    assert sorted(range(4), key=lambda n: (places[n], n)) == sorted(range(4), key=lambda n: moved[n])
    assert np.diff(sorted(moved)).min() >= 0.1 - 1e-9
    assert all(new >= old for new, old in zip(moved, places, strict=True))
