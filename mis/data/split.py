"""Which cases are trained on, chosen by and tested on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mis.data.case import Case
from mis.errors import MisError
from mis.files import write_json
from mis.params.data import SplitParams

LEAST = 3
"""Patients that a split needs: one for each part."""


@dataclass(frozen=True)
class Split:
    """Names of the cases of each part, disjoint in patients."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def split_cases(cases: Sequence[Case], params: SplitParams) -> Split:
    """Divide the cases at random, all of a patient on one side.

    Sizes are shares of the patients, rounded, and at least one for each part; the training part
    has the remainder. The result depends on the seed and the names, not on their order.

    Raises:
        MisError: There are fewer than three patients.
    """
    patients = sorted({case.patient for case in cases})
    if len(patients) < LEAST:
        raise MisError("a split into train, val and test needs at least three patients", got=len(patients))
    val = min(max(1, round(params.val * len(patients))), len(patients) - 2)
    test = min(max(1, round(params.test * len(patients))), len(patients) - 1 - val)
    order = np.random.default_rng(params.seed).permutation(len(patients))
    part = {patients[index]: _part(rank, val, test) for rank, index in enumerate(order)}
    named: Mapping[str, list[str]] = {"train": [], "val": [], "test": []}
    for case in sorted(cases, key=lambda case: case.id):
        named[part[case.patient]].append(case.id)
    return Split(**{name: tuple(ids) for name, ids in named.items()})


def _part(rank: int, val: int, test: int) -> str:
    if rank < val:
        return "val"
    return "test" if rank < val + test else "train"


def write_split(split: Split, path: Path) -> None:
    """Write the file that names every case."""
    write_json(path, asdict(split))


def read_split(path: Path) -> Split:
    """Read what `write_split` wrote."""
    return Split(**{name: tuple(ids) for name, ids in json.loads(path.read_text(encoding="utf-8")).items()})
