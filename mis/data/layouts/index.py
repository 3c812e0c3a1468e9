"""dataset.json, which the layouts msd and nnunet have: its content, and the files that it names."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mis.data.case import Case
from mis.data.check.findings import Finding
from mis.data.layouts.files import find, stem
from mis.errors import MisError

INDEX = "dataset.json"


def read_index(root: Path) -> dict[str, Any]:
    """Return the content of a data set's dataset.json.

    Raises:
        MisError: It is missing or no JSON object.
    """
    path = root / INDEX
    if not path.is_file():
        raise MisError(
            f"a data set in this layout must have {INDEX}",
            got=f"none in {root}",
            do="give the folder that holds it",
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MisError(f"{path} must be JSON: {error}", do="copy it again from the archive") from None
    if not isinstance(index, dict):
        raise MisError(f"{path} must hold one JSON object", got=type(index).__name__)
    return index


def named_file(root: Path, name: object, case: str) -> Path | Finding:
    """Return the file that dataset.json names, or a finding where it is missing or not in the data set.

    Args:
        root: The folder of the data set, where the name starts.
        name: The name.
        case: The case that the file is of.
    """
    relative = Path(os.path.normpath(str(name)))
    if relative.parts[:1] == ("..",) or relative.is_absolute():
        return Finding("outside-path", case, INDEX, str(name))
    return find(root / relative) or Finding("missing-file", case, relative.as_posix(), "no such file")


def case_name(image: object) -> str:
    """Return the name of a case, given that of its image.

    >>> case_name("./imagesTr/BRATS_001.nii.gz")
    'BRATS_001'
    """
    return stem(Path(str(image)))


def without_repeated(cases: Sequence[Case]) -> tuple[tuple[Case, ...], list[Finding]]:
    """Return the first case of each name, and a finding for each further case of a name."""
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.id, case)
    repeated = [Finding("duplicate-name", case.id, INDEX, "twice") for case in cases if case is not first[case.id]]
    return tuple(first.values()), repeated


def count_findings(index: Mapping[str, Any], key: str, number: int) -> list[Finding]:
    """Return a finding where dataset.json has another number of cases than there are.

    Args:
        index: The content of dataset.json.
        key: Its key for the number.
        number: How many cases there are.
    """
    counted = index.get(key, number)
    return [] if counted == number else [Finding("case-count", "", INDEX, f"{key} {counted!r} and {number} cases")]


def undeclared(root: Path, files: Iterable[Path], used: set[Path]) -> list[Finding]:
    """Return a finding for each NIfTI file of a data set that is not among those that are `used`."""
    return [
        Finding("undeclared-file", "", path.relative_to(root).as_posix(), "a file of no case")
        for path in files
        if path not in used
    ]
