"""Open a folder of records: the index, and the content of the records."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mis.data.check.findings import from_json
from mis.data.records import errors
from mis.data.records.index import FORMAT, INDEX, SPLIT, IndexEntry, Records
from mis.data.split import read_split
from mis.files import read_json
from mis.params.data import DataParams

TFRECORD_HEADER_BYTES, TFRECORD_FOOTER_BYTES = 12, 4
"""Around the content of a TFRecord: before it its length with a checksum, after it another checksum."""


def read_records(folder: Path, params: DataParams | None = None, *, complete: bool = True) -> Records:
    """Open a folder of records.

    Args:
        folder: The folder of the records and their index.
        params: The parameters that they must have been made with; None takes records of any.
        complete: Whether each case of the split must have its record.

    Raises:
        MisError: There are none, they are incomplete, or they were made with other parameters.
    """
    if not (folder / INDEX).is_file():
        raise errors.missing(folder)
    try:
        index = _read_index(folder)
        records = Records(
            folder=folder,
            regions=tuple(index["regions"]),
            shape=tuple(index["shape"]),
            split=read_split(folder / SPLIT),
            digest=index["digest"],
            params=DataParams.model_validate(index["params"]),
            cases=_entries(index),
            excluded={case: from_json(findings) for case, findings in index["excluded"].items()},
            data_hash=index["data_hash"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.unreadable_index(folder, (INDEX, SPLIT), error) from None
    if complete:
        _check_complete(records)
    if params is not None:
        _check_params(records, params)
    return records


def read_entries(folder: Path) -> Mapping[str, IndexEntry]:
    """Return the entry of each case in a folder's index, none where there is no index or it cannot be read."""
    try:
        return _entries(_read_index(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _read_index(folder: Path) -> Mapping[str, Any]:
    index: Mapping[str, Any] = read_json(folder / INDEX)
    if index["format"] != FORMAT:
        raise ValueError(errors.other_format(index["format"], FORMAT))
    return index


def _entries(index: Mapping[str, Any]) -> dict[str, IndexEntry]:
    return {case: IndexEntry.from_json(values) for case, values in index["cases"].items()}


def _check_complete(records: Records) -> None:
    """Check that each case has a record of its size; the checksum of its content is compared when it is read."""
    split = records.split
    for case in split.all:
        path, entry = records.path(case), records.cases.get(case)
        expected = entry.size_bytes if entry else None
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise errors.missing_record(case)
        if size != expected:
            raise errors.record_of_other_size(path, size, expected)


def _check_params(records: Records, params: DataParams) -> None:
    made_with, wanted = records.params.model_dump(mode="json"), params.model_dump(mode="json")
    for name, value in wanted.items():
        if made_with[name] != value:
            raise errors.other_params(records.folder, name, made_with[name], value)


def check_patch(records: Records, patch_size: tuple[int, int, int] | None) -> None:
    """Check that the patch of a training is not longer than the grid: it would be padded with air in every case.

    Args:
        records: The records to train on.
        patch_size: `train.patch_size`; None stands for whole volumes.

    Raises:
        MisError: It is longer than the grid of the records in some axis.
    """
    if patch_size is not None and any(edge > most for edge, most in zip(patch_size, records.shape, strict=True)):
        raise errors.patch_too_large(records.shape, patch_size)


def size_bytes(records: Records) -> int:
    """Return how many bytes the records for training and validation have on disk, and so in memory."""
    return sum(records.path(case).stat().st_size for case in (*records.split.train, *records.split.val))


def read_contents(records: Records) -> dict[str, np.ndarray]:
    """Return the content of each record for training and validation, uint8 (byte,), by the case's name.

    Raises:
        MisError: A record's hash is not that of the index.
    """
    cases = (*records.split.train, *records.split.val)
    return {case: read_content(records, case) for case in cases}


def read_content(records: Records, case: str) -> np.ndarray:
    """Return the content of a case's record, uint8 (byte,).

    Raises:
        MisError: Its hash is not that of the index.
    """
    content = record_content(np.fromfile(records.path(case), np.uint8))
    if hashlib.sha256(content.tobytes()).hexdigest() != records.cases[case].record_sha256:
        raise errors.record_of_other_content(records.path(case))
    return content


def record_content(file: np.ndarray) -> np.ndarray:
    """Return the content of a TFRecord file that has one record: all but what TFRecord puts around it.

    Args:
        file: The bytes of the file, uint8 (byte,).
    """
    return file[TFRECORD_HEADER_BYTES:-TFRECORD_FOOTER_BYTES]
