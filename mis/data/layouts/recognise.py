"""Recognise the layout of a folder, and read its cases."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mis.data.case import Case, DataSet
from mis.data.check.findings import Finding
from mis.data.layouts.brats import BRATS_2021, BRATS_2023, has_files, read_brats
from mis.data.layouts.index import INDEX, read_index
from mis.data.layouts.msd import read_msd
from mis.data.layouts.nnunet import read_nnunet
from mis.errors import MisError

NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")
LONGEST_NAME = 200
"""Most bytes of a case's name: a file system takes 255, and a record's name has a suffix."""

READERS: Mapping[str, Callable[..., DataSet]] = {
    "msd": read_msd,
    "brats2021": partial(read_brats, convention=BRATS_2021),
    "brats2023": partial(read_brats, convention=BRATS_2023),
    "nnunet": read_nnunet,
}
"""The reader of each layout, by the value that `data.layout` has for it."""


def read_data(root: Path, layout: str = "auto", *, with_labels: bool = True) -> DataSet:
    """Return the cases of a data set.

    Args:
        root: The folder of the data set.
        layout: One of `READERS`, or `auto` to recognise it.
        with_labels: Whether labels are wanted; else every case is one without, and no finding is about a label.

    Raises:
        MisError: The folder is missing, or is in none of the layouts, or its index is not as the layout has it.
    """
    if not root.is_dir():
        raise MisError(
            "data.root must be a folder with a data set",
            got=f"{root}, a link to {root.readlink()}, which is not there" if root.is_symlink() else root,
            do="make it with `dvc repro phantom`, or put or link your own there",
        )
    try:
        data = _without_bad_names(
            READERS[recognise(root) if layout == "auto" else layout](root, with_labels=with_labels)
        )
        return replace(data, findings=(*data.findings, *_shared_files(data), *_outside_links(data)))
    except OSError as error:
        raise MisError(f"a data set must be readable: {error.strerror}", got=error.filename) from None


def _without_bad_names(data: DataSet) -> DataSet:
    """Return the data set without cases whose name cannot be a file's: a record is named after its case."""

    def good(case: Case) -> bool:
        return bool(NAME.fullmatch(case.id)) and len(case.id.encode()) <= LONGEST_NAME

    bad = [case for case in (*data.cases, *data.unlabelled) if not good(case)]
    if not bad:
        return data
    return replace(
        data,
        cases=tuple(case for case in data.cases if good(case)),
        unlabelled=tuple(case for case in data.unlabelled if good(case)),
        findings=(*data.findings, *(Finding("case-name", case.id[:LONGEST_NAME], "", repr(case.id)) for case in bad)),
    )


def _shared_files(data: DataSet) -> Iterator[Finding]:
    """Yield a finding for each file that is part of more than one case."""
    owners: dict[Path, Case] = {}
    for case in (*data.cases, *data.unlabelled):
        for file in case.files:
            if (owner := owners.setdefault(file, case)) is not case:
                yield Finding("same-file", case.id, data.name(file), f"one of {owner.id} too")


def _outside_links(data: DataSet) -> Iterator[Finding]:
    """Yield a finding where links lead out of the data set, as those of git-annex do."""
    root = data.root.resolve()
    files = [file for case in (*data.cases, *data.unlabelled) for file in case.files]
    if away := [file for file in files if not file.resolve().is_relative_to(root)]:
        yield Finding("outside-link", "", data.name(away[0]), f"{len(away)} links that lead out of it")


def recognise(root: Path) -> str:
    """Return the name of a folder's layout, a key of `READERS`.

    Raises:
        MisError: None of them, or more than one.
    """
    if (root / INDEX).is_file():
        index = read_index(root)
        layouts = [layout for key, layout in (("channel_names", "nnunet"), ("training", "msd")) if key in index]
        if not layouts:
            raise MisError(
                f"{root / INDEX} must have training (MSD) or channel_names (nnU-Net)",
                got=", ".join(index) or "nothing",
                do="see docs/data.md",
            )
        return layouts[0]
    found = [convention.layout for convention in (BRATS_2021, BRATS_2023) if has_files(root, convention)]
    if len(found) != 1:
        raise MisError(
            "a data set must be in one of the layouts msd and nnunet (with dataset.json), brats2021 "
            "(<case>_flair.nii.gz) and brats2023 (<case>-t2f.nii.gz)",
            got=f"{root} with {' and '.join(found)}" if found else f"none of them in {root}",
            do="name one as data.layout" if found else _hint(root),
        )
    return found[0]


def _hint(root: Path) -> str:
    """Return what to do where no layout was recognised: the data set is often one folder further down."""
    inner = [path for path in sorted(root.iterdir()) if path.is_dir() and (path / INDEX).is_file()]
    return f"give {inner[0]}" if inner else "give the folder that holds it"
