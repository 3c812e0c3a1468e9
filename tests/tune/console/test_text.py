from math import inf

from mis.tune.console.progress import Progress
from mis.tune.console.text import end_of, headline, one_line, short_names, short_values, tail
from mis.tune.trial import Trial, TrialState


def progress(*trials, total=24):
    return Progress("one", total, 2, 8, 0.0, inf, {trial.number: trial for trial in trials}, {})


def values(trial):
    return short_values(trial, short_names(progress(trial)))


def test_a_name_is_its_last_part_unless_another_one_shares_it():
    row = Trial(0, {"train.learning_rate": 0.00312345, "model.norm": "group", "train.norm": 1.0})
    assert values(row) == "learning_rate=0.00312 model.norm=group train.norm=1"


def test_a_name_that_another_trial_has_is_shared_too():
    rows = Trial(0, {"model.norm": "group"}), Trial(1, {"train.norm": 1.0})
    assert short_names(progress(*rows)) == {"model.norm": "model.norm", "train.norm": "train.norm"}


def test_values_are_one_line_as_they_are():
    assert values(Trial(0, {"a.b": "[red]x[/]", "a.c": "two\nlines"})) == "b=[red]x[/] c=two lines"


def test_a_search_of_one_trial_and_of_nobody_knows_how_many():
    row = Trial(0, {}, TrialState.COMPLETED, epochs=1, best={"val/dice": 0.5}, elapsed_s=9.0)
    assert headline(progress(row, total=1), 9) == "study one: 1 of 1 trial ended, best Dice 0.500 (trial 000), 9 s"
    assert headline(progress(row, total=None), 9) == "study one: 1 trial ended, best Dice 0.500 (trial 000), 9 s"
    assert headline(progress(total=None), 0) == "study one: 0 trials ended, 0 s"
    more = [Trial(number, {}, TrialState.COMPLETED, epochs=1, best={"val/dice": 0.5}) for number in range(4)]
    assert headline(progress(*more, total=2), 9).startswith("study one: 4 of 4 trials ended"), "the budget was larger"
    assert tail(progress(*more, total=2), 9).startswith("4 of 4 ended")
    assert tail(progress(row, total=None), 9) == "1 ended, best 0.500"


def test_a_best_trial_that_has_not_ended_is_told_to_be_so():
    """What comes of a search is of trials that have ended: this one may still be lost."""
    ended = Trial(0, {}, TrialState.COMPLETED, epochs=8, best={"val/dice": 0.5})
    better = Trial(1, {}, TrialState.RUNNING, epochs=1, best={"val/dice": 0.75})
    both = progress(ended, better, total=2)
    assert "1 of 2 trials ended, 1 running, best Dice 0.750 (trial 001, running)" in headline(both, 9)
    assert tail(both, 9) == "1 of 2 ended, best 0.750 (trial 001, running)"
    assert "1 interrupted, best Dice 0.750 (trial 001, interrupted)" in headline(both.leave(), 9)


def test_what_became_of_a_trial():
    assert end_of(Trial(0, {}, TrialState.STOPPED, epochs=1, best={"val/dice": 0.5}, elapsed_s=90), {}) == (
        "trial 000 stopped: Dice 0.500 after 1 epoch, 2 min"
    )
    assert end_of(Trial(1, {"a": 2}, TrialState.FAILED, elapsed_s=3, error="ValueError: [x]"), {"a": "a"}) == (
        "trial 001 failed: no epoch, 3 s (a=2): ValueError: [x]"
    )


def test_control_codes_go():
    assert one_line("\x1b[31mred\x1b[0m \x07bell\x00 \x1b[2Kx\r\ny\tz") == "red bell x y z"
