"""The best model of all, registered as `mis@champion`: another one replaces it only where it is better."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mis.errors import MisError
from mis.model.card import VALIDATION_SPLIT, ModelCard
from mis.track.base import RegisteredModel, RunStore
from mis.track.names import CHAMPION, REGISTERED_NAME

VAL_DICE, RECORDS, VALIDATED_ON, SHA256 = "mis.val_dice", "mis.records", "mis.validated_on", "mis.sha256"
"""Tags of a registered model: its validation Dice, the digest of the records, which of their cases it was validated on,
and the hash of its file."""


@dataclass(frozen=True)
class Registration:
    """A model that was registered.

    Attributes:
        version: Its version.
        is_champion: Whether it became the champion.
        reason: Why, as a sentence.
    """

    version: str
    is_champion: bool
    reason: str


def register(tracker: RunStore, run_id: str, model: Path, card: ModelCard, scores: Mapping[str, float]) -> Registration:
    """Register a model, and make it the champion where it is the first one or better than the champion.

    The champion itself is not registered again.

    Better is a higher validation Dice on the same cases of the same records: on others the two figures do not compare.

    Args:
        tracker: Where it is registered.
        run_id: The run of its evaluation.
        model: Its file.
        card: What it was trained on.
        scores: `val_dice`, and the scores of the test cases, which are kept with it.
    """
    digest = sha256(model.read_bytes()).hexdigest()
    champion = tracker.find_model(REGISTERED_NAME, CHAMPION)
    if champion is not None and champion.tags.get(SHA256) == digest:
        return Registration(champion.version, True, "it is the same model as before")
    tags = {
        SHA256: digest,
        VAL_DICE: repr(scores["val_dice"]),
        RECORDS: card.records,
        VALIDATED_ON: card.validated_on,
        "mis.data_hash": card.data_hash or "",
        "mis.regions": ",".join(card.regions),
        **{f"mis.test_{name}": repr(value) for name, value in scores.items() if name.startswith("dice")},
    }
    version = tracker.register_model(REGISTERED_NAME, run_id, model, tags).version
    becomes, reason = decide(champion, scores["val_dice"], card)
    if becomes:
        tracker.set_alias(REGISTERED_NAME, CHAMPION, version)
    return Registration(version, becomes, reason)


def decide(champion: RegisteredModel | None, val_dice: float, card: ModelCard) -> tuple[bool, str]:
    """Return whether a model becomes the champion, and why."""
    if champion is None:
        return True, "it is the first one"
    dice = float(champion.tags.get(VAL_DICE, "nan"))
    if champion.tags.get(RECORDS) != card.records:
        return False, f"version {champion.version} was chosen on other records, with which its Dice does not compare"
    if (cases := champion.tags.get(VALIDATED_ON, VALIDATION_SPLIT)) != card.validated_on:
        return False, (
            f"version {champion.version} was validated on other cases ({cases}, and not {card.validated_on}), with "
            "which its Dice does not compare"
        )
    if val_dice > dice:
        return True, f"its validation Dice is above the {dice:.4f} of version {champion.version}"
    return False, f"its validation Dice is not above the {dice:.4f} of version {champion.version}"


def promote(tracker: RunStore, version: str) -> None:
    """Make a version the champion, whatever its scores.

    Raises:
        MisError: There is no such version.
    """
    if not version.isdigit() or tracker.find_model(REGISTERED_NAME, version) is None:
        raise MisError(f"a version must be one of the registered model {REGISTERED_NAME}", got=version)
    tracker.set_alias(REGISTERED_NAME, CHAMPION, version)
