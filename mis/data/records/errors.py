"""What is wrong with records, in words: apart from what reads them, so that a sentence makes no training stale."""

from collections.abc import Sequence
from pathlib import Path

from mis.errors import MisError

REMEDY = "make them with `dvc repro preprocess`"


def missing(folder: Path | str) -> MisError:
    """There are no records in the folder."""
    return MisError("the records must exist", got=f"none in {folder}", do=REMEDY)


def unreadable_index(folder: Path, names: Sequence[str], error: Exception) -> MisError:
    """The index, or the split beside it, is damaged or of another version."""
    rule = f"{folder / names[0]} and {names[1]} must be as they were written: {error}"
    return MisError(rule, do=REMEDY)


def other_format(found: object, expected: int) -> str:
    """The index is of another version: a part of a sentence."""
    return f"their format is {found}, not {expected}"


def missing_record(case: str) -> MisError:
    """A case of the split has no record."""
    return MisError("every case of the split must have its record", got=f"none for {case}", do=REMEDY)


def record_of_other_size(path: Path, size: int, expected: int | None) -> MisError:
    """The file of a record is longer or shorter than the index says."""
    found = f"{size} bytes in {path}, not {expected}"
    return MisError("every case of the split must have its record", got=found, do=REMEDY)


def record_of_other_content(path: Path | str) -> MisError:
    """The content of a record has another hash than the index says."""
    return MisError(f"{path} must be as it was written: its hash is another", do=REMEDY)


def damaged(folder: Path, message: str) -> MisError:
    """TensorFlow found that a record is damaged when it read it."""
    return MisError(f"the records in {folder} must be as they were written: {message.splitlines()[0]}", do=REMEDY)


def other_params(folder: Path, name: str, made_with: object, wanted: object) -> MisError:
    """The records were made with another value of a parameter."""
    return MisError(f"the records in {folder} were made with data.{name} {made_with}", got=wanted, do=REMEDY)


def too_few_patients(patients: int) -> MisError:
    """A part of the split would be empty."""
    return MisError("a split into train, val and test needs at least three patients", got=patients)


def too_few_patients_for_folds(patients: int, folds: int) -> MisError:
    """A fold would be empty."""
    return MisError(
        f"train.folds must be at most {patients}, the patients that are for training and validation", got=folds
    )


def patch_too_large(shape: Sequence[int], patch_size: Sequence[int]) -> MisError:
    """The patch is longer than the grid of the records in some axis."""
    rule = f"train.patch_size must fit into the grid of the records, {shape}"
    return MisError(rule, got=patch_size, do="make it smaller, or null for whole volumes")
