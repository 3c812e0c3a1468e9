import math

import pytest

from mis.report.results import read_results
from mis.report.tables import (
    NOTHING,
    TIMES,
    cases_table,
    key_figures,
    measured_line,
    speedup_table,
    terms_table,
    trials_table,
    verdict,
)


def titles(table):
    return [column.title for column in table.columns]


def test_trials_stand_from_the_best_to_those_without_a_score(run):
    run.trials.append(run.trial("003", "failed", [], 0.5, "group", error="MisError: no memory"))
    table = trials_table(read_results(run.write()))
    expected = [
        "trial",
        "state",
        "epochs",
        "Dice",
        "WT",
        "TC",
        "ET",
        "time",
        "train.learning_rate",
        "model.norm",
        "error",
    ]
    assert titles(table) == expected
    assert [(line.cells[0], line.badge) for line in table.lines] == [
        ("001", "best"),
        ("000", ""),
        ("002", ""),
        ("003", ""),
    ]
    assert table.lines[0].cells == (
        *("001", "completed", "2", "0.400", "0.400", "0.400", "0.400", "12.3 s", "0.01", "group", NOTHING),
    )
    assert table.lines[-1].cells == (
        *("003", "failed", "0", NOTHING, NOTHING, NOTHING, NOTHING, "12.3 s", "0.5", "group", "MisError: no memory"),
    )
    numeric = {column.title for column in table.columns if column.numeric}
    assert numeric == set(expected) - {"trial", "state", "model.norm", "error"}


def test_there_is_no_column_of_errors_without_an_error(run):
    assert "error" not in titles(trials_table(read_results(run.write())))


def test_cases_and_their_mean(run):
    table = cases_table(read_results(run.write()).evaluation)
    assert titles(table) == ["case", "mean of regions", "WT", "TC", "ET", "FLAIR threshold, WT"]
    assert table.lines[0].cells == ("BRATS_003", "0.800", "0.800", "0.800", "0.800", "0.300")
    (foot,) = table.foot
    assert foot.cells == ("mean", "0.700", "0.700", "0.700", "0.700", "0.400")


def test_a_single_region_has_no_mean_over_regions(make_run):
    table = cases_table(read_results(make_run(regions=["WT"]).write()).evaluation)
    assert titles(table) == ["case", "WT", "FLAIR threshold, WT"]
    assert table.foot[0].cells == ("mean", "0.700", "0.400")


def test_a_missing_score_is_left_out_of_the_mean(run):
    run.cases.append(run.case("BRATS_020", math.nan, math.nan))
    table = cases_table(read_results(run.write()).evaluation)
    assert set(table.lines[-1].cells[1:]) == {NOTHING}
    assert table.foot[0].cells == ("mean", "0.700", "0.700", "0.700", "0.700", "0.400")


def test_speedups_with_one_device_once(run):
    table = speedup_table(read_results(run.write()).scaling)
    assert [line.cells for line in table.lines] == [
        ("reference", "1", "8.5 s", f"{TIMES}1.00", NOTHING, "100%", "0.00236", "100%", "3.0 s"),
        (
            "data parallelism",
            "2",
            "5.3 s",
            f"{TIMES}1.60",
            f"{TIMES}1.60 to {TIMES}1.60",
            "80%",
            "0.00295",
            "100%",
            "3.0 s",
        ),
        (
            "experiment parallelism",
            "2",
            "4.2 s",
            f"{TIMES}2.00",
            f"{TIMES}2.00 to {TIMES}2.00",
            "100%",
            "0.00236",
            "100%",
            "3.0 s",
        ),
    ]


def test_the_time_of_an_epoch_is_divided_into_terms(run):
    lines = [line.cells for line in terms_table(read_results(run.write()).scaling).lines]
    # Two epochs in 2.125 s; a quarter is validation, of the steps a tenth all-reduces and a fiftieth input.
    assert lines[0] == ("1", "0.70 s", "0.08 s", "0.02 s", "0.27 s", "0.10 s", "1.16 s")
    assert [cells[0] for cells in lines] == ["1", "2"]


def test_the_verdict_of_the_training(run):
    assert verdict(read_results(run.write())) == (
        "The best model is that of the single training with the parameters as they stand: validation Dice of 0.600 "
        "at epoch 2 of 3. On 2 test cases, which no training has seen, its mean Dice is WT 0.700, TC 0.700, ET 0.700; "
        "the best threshold on FLAIR reaches WT 0.400 on the same. The search comes to a validation Dice of 0.400 in "
        "2 epochs of trial 001, the best of 3 trials. On 2 devices in place of one, which needs 8.5 s for 4 trials, "
        f"the speed-up is {TIMES}1.60 by data parallelism and {TIMES}2.00 by experiment parallelism."
    )


def test_the_verdict_of_the_search(make_run):
    run = make_run(regions=["WT"], devices=[1])
    run.chosen = {"model": "tune", "val_dice": 0.4}
    run.cases = run.cases[:1]
    assert verdict(read_results(run.write())) == (
        "The best model is that of the search: validation Dice of 0.400 in 2 epochs of trial 001, the best of "
        "3 trials. On 1 test case, which no training has seen, its mean Dice is WT 0.800; the best threshold on FLAIR "
        "reaches WT 0.300 on the same. The single training with the parameters as they stand comes to a validation "
        "Dice of 0.600 at epoch 2 of 3. Scaling was measured on one device alone: there is no speed-up to report."
    )


def test_the_verdict_says_when_more_devices_are_slower(run):
    run.elapsed_s = lambda mode, count, number: 8 * count if mode == "data" else 8 / count  # noqa: ARG005
    text = verdict(read_results(run.write()))
    assert f"{TIMES}0.50 by data parallelism and {TIMES}2.00 by experiment" in text
    assert f"below {TIMES}1, more devices take longer" in text


def test_key_figures(run):
    figures = key_figures(read_results(run.write()))
    assert [(one.value, one.label) for one in figures] == [
        ("0.600", "best validation Dice"),
        ("0.700", "test Dice, WT"),
        ("0.700", "test Dice, TC"),
        ("0.700", "test Dice, ET"),
        (f"{TIMES}1.60", "data parallelism"),
        (f"{TIMES}2.00", "experiment parallelism"),
    ]
    assert figures[1].note == "FLAIR threshold: 0.400"
    assert figures[-1].note == f"2 devices, ideal {TIMES}2"


def test_key_figures_of_one_device_have_no_speedup(make_run):
    figures = key_figures(read_results(make_run(devices=[1]).write()))
    assert not any(TIMES in one.value for one in figures)


def test_a_caption_names_gpus_and_local_changes():
    facts = {
        "machine": {"cpu": "EPYC", "cores": "1", "memory_gib": "8.0", "gpus": "H100, 81559 MiB; H100, 81559 MiB"},
        "versions": {"keras": "3.15.1", "tensorflow": "2.21.0", "ray": "2.60.0"},
        "git_commit": "0123456789abcdef-dirty",
        "measured_at": "2026-11-23T07:36:04+00:00",
    }
    line = measured_line(facts)
    assert line.startswith("EPYC, 1 core, 2 GPUs H100, 81559 MiB, 8.0 GiB memory")
    assert "Keras 3.15.1, TensorFlow 2.21.0, Ray 2.60.0" in line
    assert "commit 0123456 with local changes" in line
    assert line.endswith("2026-11-23")


@pytest.mark.parametrize("facts", [{}, {"machine": {}, "git_commit": "unknown"}])
def test_a_caption_without_facts_says_so(facts):
    assert measured_line(facts).endswith("commit unknown")
