from dataclasses import replace

import pytest

from mis.errors import MisError
from mis.evaluate.champion import promote, register
from mis.model.card import ModelCard
from mis.track.memory import MemoryTracker


@pytest.fixture
def enter(records, params, tmp_path):
    """Register a model with a validation Dice, and return what came of it."""
    tracker, card = MemoryTracker(), ModelCard.of(records, params.model, params.train)

    def entered(val_dice, other_records=None, validated_on="val"):
        run = tracker.start_run("mis/evaluate", "test")
        (tmp_path / "model.keras").write_bytes(repr(val_dice).encode())
        own = replace(card, records=other_records or card.records, validated_on=validated_on)
        return register(tracker, run.id, tmp_path / "model.keras", own, {"val_dice": val_dice, "dice": 0.5, "cases": 4})

    entered.tracker = tracker
    return entered


def champion(enter):
    return enter.tracker.find_model("mis", "champion").version


def test_the_first_model_is_the_champion_and_a_better_one_replaces_it(enter):
    assert enter(0.5).is_champion
    assert champion(enter) == "1"
    second = enter(0.6)
    assert second.is_champion
    assert "above the 0.5000 of version 1" in second.reason
    assert champion(enter) == "2"


def test_the_champion_is_not_registered_again(enter):
    enter(0.5)
    again = enter(0.5)
    assert (again.version, again.is_champion) == ("1", True)
    assert enter.tracker.find_model("mis", "2") is None


@pytest.mark.parametrize("val_dice", [0.4, 0.5 - 1e-9, float("nan")])
def test_a_model_that_is_not_better_never_replaces_it(enter, val_dice):
    enter(0.5)
    second = enter(val_dice)
    assert (second.version, second.is_champion) == ("2", False)
    assert champion(enter) == "1"


def test_a_dice_on_other_records_does_not_compare(enter):
    enter(0.5)
    second = enter(0.9, other_records="others")
    assert not second.is_champion
    assert "other records" in second.reason
    promote(enter.tracker, "2")
    assert champion(enter) == "2"


def test_a_registered_model_has_its_scores_and_its_data(enter, records):
    enter(0.5)
    tags = enter.tracker.find_model("mis", "1").tags
    assert (tags["mis.val_dice"], tags["mis.test_dice"], tags["mis.records"]) == ("0.5", "0.5", records.digest)


@pytest.mark.parametrize("version", ["2", "champion", "x"])
def test_only_a_version_that_is_there_is_promoted(enter, version):
    enter(0.5)
    with pytest.raises(MisError, match="a version must be one of the registered model"):
        promote(enter.tracker, version)


def test_a_dice_of_a_fold_does_not_compare_with_that_of_the_validation_cases(enter):
    enter(0.5)
    second = enter(0.9, validated_on="fold 0 of 5")
    assert not second.is_champion
    assert "other cases (val, and not fold 0 of 5)" in second.reason
    promote(enter.tracker, "2")
    assert enter(0.95, validated_on="fold 0 of 5").is_champion
