"""Which cases are for training, for validation and for the test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mis.data.case import Case, patient_of
from mis.data.records.errors import too_few_patients, too_few_patients_for_folds
from mis.files import write_json
from mis.params.data import SplitParams

MIN_PATIENTS = 3
"""A split needs a patient for each part."""


@dataclass(frozen=True)
class Split:
    """The names of the cases of each part; no patient is in two parts.

    Attributes:
        train: The cases to train on.
        val: The validation cases: they choose the epoch and the model.
        test: The cases that nothing is chosen by.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """The cases of all parts."""
        return (*self.train, *self.val, *self.test)


def split_cases(cases: Sequence[Case], params: SplitParams) -> Split:
    """Divide the cases at random, all of a patient on one side.

    The sizes are shares of the patients, rounded, and at least one patient for each part; the training part has
    the remainder. The result depends on the seed and on the names of the cases, not on their order.

    Raises:
        MisError: There are fewer than three patients.
    """
    patients = sorted({case.patient for case in cases})
    if len(patients) < MIN_PATIENTS:
        raise too_few_patients(len(patients))
    val = min(max(1, round(params.val * len(patients))), len(patients) - 2)
    test = min(max(1, round(params.test * len(patients))), len(patients) - 1 - val)
    order = np.random.default_rng(params.seed).permutation(len(patients))
    part = {patients[index]: _part(position, val, test) for position, index in enumerate(order)}
    parts: Mapping[str, list[str]] = {"train": [], "val": [], "test": []}
    for case in sorted(cases, key=lambda case: case.id):
        parts[part[case.patient]].append(case.id)
    return Split(**{name: tuple(ids) for name, ids in parts.items()})


def fold_of(split: Split, folds: int, fold: int, seed: int) -> Split:
    """Cut the training and validation cases anew into folds of patients: one is validated on, the others trained on.

    The patients of both parts are dealt out at random, so that the folds have equally many, or one more. Which fold
    has a patient depends on the seed and on the names of the cases alone; each patient is in one fold.

    Args:
        split: The split; its test cases stay.
        folds: How many folds there are.
        fold: The number of the one that is validated on, from 0.
        seed: The seed.

    Raises:
        MisError: There are fewer patients than folds.
    """
    cases = sorted((*split.train, *split.val))
    patients = sorted({patient_of(case) for case in cases})
    if len(patients) < folds:
        raise too_few_patients_for_folds(len(patients), folds)
    order = np.random.default_rng([seed, folds]).permutation(len(patients))
    held_out = {patients[index] for position, index in enumerate(order) if position % folds == fold}
    train = tuple(case for case in cases if patient_of(case) not in held_out)
    val = tuple(case for case in cases if patient_of(case) in held_out)
    return Split(train, val, split.test)


def _part(position: int, val: int, test: int) -> str:
    """Return the part of a patient at this position of the random order: `val` and `test` patients come first."""
    if position < val:
        return "val"
    return "test" if position < val + test else "train"


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON, which `read_split` reads."""
    write_json(path, asdict(split))


def read_split(path: Path) -> Split:
    """Return the split that `write_split` wrote."""
    return Split(**{name: tuple(ids) for name, ids in json.loads(path.read_text(encoding="utf-8")).items()})
