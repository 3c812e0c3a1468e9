"""Preprocessed cases on disk: one TFRecord file for each case, and an index.

A file for each case: shuffling moves names and not volumes, workers share the cases evenly, and a
changed case is one file. Intensities are stored as float16: standardised values lie within some
ten units of 0, where its rounding is below 0.005, far below the noise of the scanner.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mis.data.split import Split, read_split, write_split
from mis.errors import MisError
from mis.files import write_json

INDEX = "index.json"
SPLIT = "split.json"


@dataclass(frozen=True)
class Records:
    """A folder of records.

    Attributes:
        folder: Where the files are.
        modalities: Names of the image's channels.
        regions: Names of the target's channels.
        shape: (x, y, z) of every case.
        split: Which case belongs to which part.
        digest: A hash of every record.
    """

    folder: Path
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    shape: tuple[int, int, int]
    split: Split
    digest: str

    def path(self, case: str) -> Path:
        """The file of a case."""
        return record_path(self.folder, case)


def record_path(folder: Path, case: str) -> Path:
    """Return the file of a case."""
    return folder / f"{case}.tfrecord"


def write_index(records: Records) -> None:
    """Write what `read_records` reads beside the cases' files."""
    index = {key: value for key, value in asdict(records).items() if key not in ("folder", "split")}
    write_json(records.folder / INDEX, index)
    write_split(records.split, records.folder / SPLIT)


def read_records(folder: Path) -> Records:
    """Open a folder of records.

    Raises:
        MisError: There are none.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MisError(
            "the records must exist", got=f"none in {folder}", do="make them with `dvc repro preprocess`"
        ) from None
    return Records(
        folder=folder,
        modalities=tuple(index["modalities"]),
        regions=tuple(index["regions"]),
        shape=tuple(index["shape"]),
        split=read_split(folder / SPLIT),
        digest=index["digest"],
    )
