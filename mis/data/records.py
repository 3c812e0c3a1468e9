"""Preprocessed cases on disk: one TFRecord file for each case, and an index.

A file for each case: shuffling moves names and not volumes, workers share the cases evenly, and a
changed case is one file. Intensities are stored as float16: standardised values lie within some
ten units of 0, where its rounding is below 0.005, far below the noise of the scanner.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from mis.data.split import Split, read_split, write_split
from mis.errors import MisError
from mis.files import read_json, write_json
from mis.params import DataParams

INDEX = "index.json"
SPLIT = "split.json"
REMEDY = "make them with `dvc repro preprocess`"


@dataclass(frozen=True)
class Records:
    """A folder of records.

    Attributes:
        folder: Where the files are.
        modalities: Names of the image's channels.
        regions: Names of the target's channels.
        shape: (x, y, z) of every case.
        split: Which case belongs to which part.
        digest: A hash of every record, its regions and the split.
        params: What they were made with.
        in_memory: The content of each case's record, where the node's memory has it; else it is read from its file.
    """

    folder: Path
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    shape: tuple[int, int, int]
    split: Split
    digest: str
    params: DataParams
    in_memory: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)

    def path(self, case: str) -> Path:
        """The file of a case."""
        return record_path(self.folder, case)


def record_path(folder: Path, case: str) -> Path:
    """Return the file of a case."""
    return folder / f"{case}.tfrecord"


def read_contents(records: Records) -> dict[str, np.ndarray]:
    """Return the content of the record of each case to train on and to choose by: uint8 (byte,).

    TFRecord has 12 bytes before it, its length and a checksum, and 4 after it, another checksum; a
    file has one record.
    """
    cases = (*records.split.train, *records.split.val)
    return {case: np.fromfile(records.path(case), np.uint8)[12:-4] for case in cases}


def size_bytes(records: Records) -> int:
    """Return how much `read_contents` returns."""
    return sum(records.path(case).stat().st_size for case in (*records.split.train, *records.split.val))


def write_index(records: Records) -> None:
    """Write what `read_records` reads beside the cases' files."""
    left_out = ("folder", "split", "params", "in_memory")
    index = {key: value for key, value in asdict(records).items() if key not in left_out}
    index["params"] = records.params.model_dump(mode="json")
    write_json(records.folder / INDEX, index)
    write_split(records.split, records.folder / SPLIT)


def read_records(folder: Path, params: DataParams | None = None) -> Records:
    """Open a folder of records.

    Args:
        folder: Where they are.
        params: What they must have been made with; None takes them as they are.

    Raises:
        MisError: There are none, they are not whole, or they were made with other parameters.
    """
    if not (folder / INDEX).is_file():
        raise MisError("the records must exist", got=f"none in {folder}", do=REMEDY)
    try:
        index = read_json(folder / INDEX)
        records = Records(
            folder=folder,
            modalities=tuple(index["modalities"]),
            regions=tuple(index["regions"]),
            shape=tuple(index["shape"]),
            split=read_split(folder / SPLIT),
            digest=index["digest"],
            params=DataParams.model_validate(index["params"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MisError(f"{folder / INDEX} and {SPLIT} must be as they were written: {error}", do=REMEDY) from None
    _check_whole(records)
    if params is not None:
        _check_params(records, params)
    return records


def _check_whole(records: Records) -> None:
    split = records.split
    missing = [case for case in (*split.train, *split.val, *split.test) if not records.path(case).is_file()]
    if missing:
        raise MisError(
            "every case of the split must have its record", got=f"none for {', '.join(missing[:5])}", do=REMEDY
        )


def _check_params(records: Records, params: DataParams) -> None:
    made, wanted = records.params.model_dump(mode="json"), params.model_dump(mode="json")
    for name, value in wanted.items():
        if made[name] != value:
            raise MisError(
                f"the records in {records.folder} were made with data.{name} {made[name]}", got=value, do=REMEDY
            )
