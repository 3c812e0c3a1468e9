"""Preprocessed cases on disk: one TFRecord file for each case, and an index.

A shard is one case: shuffling moves names and not volumes, workers share the cases evenly, a changed case is
one file, and some 12 MB are enough for one read of a parallel file system. A file has a checksum, TFRecord's own.

Stored is the box of the brain: which of its voxels are brain (a bit each), their standardised intensities as
float16, and for every voxel of the box the regions that it belongs to (a bit each, together compressed).
Outside of the brain the intensities are 0, so that nothing is lost there; within, float16 rounds by at most
1/2048 of the value, 0.0005 standard deviations at one, far below the noise of the scanner.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mis.data.case import MODALITIES, REGIONS, WHOLE_TUMOR
from mis.data.check.findings import PAGE, Finding, from_json, to_json
from mis.data.geometry import Geometry
from mis.data.split import Split, read_split, write_split
from mis.errors import MisError
from mis.files import read_json, write_json
from mis.params.data import DataParams

FORMAT = 2
"""Changes whenever older records cannot be read, or would be made otherwise."""

INDEX = "index.json"
SPLIT = "split.json"
CHECK = "check"
"""The folder of the tables."""
CHECKED = Path("results/check")
"""The folder of the tables of a data set of which no records were made, in the workspace."""
PARTS = {"train": "to train on", "val": "to choose by", "test": "to test"}
"""Of a split."""
REMEDY = "make them with `dvc repro preprocess`"


@dataclass(frozen=True)
class Stored:
    """What the index says of a case.

    Attributes:
        key: A hash of its files, and of the parameters that its record depends on.
        source_sha256: Of its files.
        content: Of each modality and of the label, see `mis.data.check.integrity.Examined`.
        record_sha256: Of its record's content.
        size_bytes: Of its record's file.
        geometry: Where the box lies in the original grid.
        statistics: By modality `mean`, `std`, `min` and `max` of the brain in the scanner's units; `brain_voxels`
            and the voxels of each region.
        findings: Warnings.
    """

    key: str
    source_sha256: str
    content: tuple[str, ...]
    record_sha256: str
    size_bytes: int
    geometry: Geometry
    statistics: Mapping[str, Any]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {**vars(self), "geometry": self.geometry.to_json(), "findings": to_json(self.findings)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Stored":
        """Return what `to_json` wrote."""
        geometry, findings = Geometry.from_json(values["geometry"]), from_json(values["findings"])
        content = tuple(values["content"])
        return cls(**{**values, "content": content, "geometry": geometry, "findings": findings})


@dataclass(frozen=True)
class Records:
    """A folder of records.

    Attributes:
        folder: Where the files are.
        regions: Names of the target's channels.
        shape: (x, y, z) of the grid to which every case is cropped or padded when it is read whole.
        split: Which case belongs to which part.
        digest: A hash of every record, its regions and the split.
        params: What they were made with.
        cases: What is known of each case.
        left_out: The cases that were not used, with the reason; "" stands for the data set as a whole.
        data_hash: DVC's hash of the data set that they were made from; None where it is not versioned.
        in_memory: The content of each case's record, where the node's memory has it; else it is read from its file.
    """

    folder: Path
    regions: tuple[str, ...]
    shape: tuple[int, int, int]
    split: Split
    digest: str
    params: DataParams
    cases: Mapping[str, Stored] = field(repr=False, compare=False)
    left_out: Mapping[str, str] = field(default_factory=dict)
    data_hash: str | None = None
    in_memory: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the image's channels."""
        return MODALITIES

    @property
    def bits(self) -> tuple[int, ...]:
        """Which bit of a stored label each region is."""
        return tuple(REGIONS.index(region) for region in self.regions)

    def path(self, case: str) -> Path:
        """The file of a case."""
        return record_path(self.folder, case)


def learnt_regions(params: DataParams) -> tuple[str, ...]:
    """Return the regions that are learnt: all, or the whole tumour alone."""
    return REGIONS if params.target == "regions" else (WHOLE_TUMOR,)


def record_path(folder: Path, case: str) -> Path:
    """Return the file of a case."""
    return folder / f"{case}.tfrecord"


def read_contents(records: Records) -> dict[str, np.ndarray]:
    """Return the record's content of each case to train on and to choose by, compared with its hash: uint8 (byte,).

    TFRecord has 12 bytes before it, its length and a checksum, and 4 after it, another checksum; a
    file has one record.
    """
    cases = (*records.split.train, *records.split.val)
    return {case: _content(records, case) for case in cases}


def _content(records: Records, case: str) -> np.ndarray:
    content = np.fromfile(records.path(case), np.uint8)[12:-4]
    if hashlib.sha256(content.tobytes()).hexdigest() != records.cases[case].record_sha256:
        raise MisError(f"{records.path(case)} must be as it was written: its hash is another", do=REMEDY)
    return content


def check_patch(records: Records, size: tuple[int, int, int] | None) -> None:
    """Check that a training's patch is none that is filled up with air in every case.

    Args:
        records: What is trained on.
        size: `train.patch_size`; None stands for whole volumes.

    Raises:
        MisError: It is longer than the grid of the records in some axis.
    """
    if size is not None and any(edge > most for edge, most in zip(size, records.shape, strict=True)):
        rule = f"train.patch_size must fit into the grid of the records, {records.shape}"
        raise MisError(rule, got=size, do="make it smaller, or null for whole volumes")


def size_bytes(records: Records) -> int:
    """Return how much `read_contents` returns."""
    return sum(records.path(case).stat().st_size for case in (*records.split.train, *records.split.val))


def write_index(records: Records) -> None:
    """Write what `read_records` reads beside the cases' files."""
    index = {
        "format": FORMAT,
        "modalities": records.modalities,
        "regions": records.regions,
        "stored_regions": REGIONS,
        "shape": records.shape,
        "digest": records.digest,
        "params": records.params.model_dump(mode="json"),
        "left_out": dict(records.left_out),
        "data_hash": records.data_hash,
        "cases": {case: stored.to_json() for case, stored in records.cases.items()},
    }
    write_split(records.split, records.folder / SPLIT)
    write_json(records.folder / INDEX, index)


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
        index = _index(folder)
        records = Records(
            folder=folder,
            regions=tuple(index["regions"]),
            shape=tuple(index["shape"]),
            split=read_split(folder / SPLIT),
            digest=index["digest"],
            params=DataParams.model_validate(index["params"]),
            cases={case: Stored.from_json(values) for case, values in index["cases"].items()},
            left_out=index["left_out"],
            data_hash=index["data_hash"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MisError(f"{folder / INDEX} and {SPLIT} must be as they were written: {error}", do=REMEDY) from None
    _check_whole(records)
    if params is not None:
        _check_params(records, params)
    return records


def read_stored(folder: Path) -> Mapping[str, Stored]:
    """Return what an index says of its cases, nothing where there is none or it cannot be read."""
    try:
        return {case: Stored.from_json(values) for case, values in _index(folder)["cases"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _index(folder: Path) -> Mapping[str, Any]:
    index: Mapping[str, Any] = read_json(folder / INDEX)
    if index["format"] != FORMAT:
        raise ValueError(f"their format is {index['format']}, not {FORMAT}")
    return index


def _check_whole(records: Records) -> None:
    """Check that each case has a record of its size; its content has a checksum, which is compared when it is read."""
    split = records.split
    for case in (*split.train, *split.val, *split.test):
        path, expected = records.path(case), records.cases[case].size_bytes if case in records.cases else None
        size = path.stat().st_size if path.is_file() else None
        if size is None or size != expected:
            raise MisError(
                "every case of the split must have its record",
                got=f"none for {case}" if size is None else f"{size} bytes in {path}, not {expected}",
                do=REMEDY,
            )


def _check_params(records: Records, params: DataParams) -> None:
    made, wanted = records.params.model_dump(mode="json"), params.model_dump(mode="json")
    for name, value in wanted.items():
        if made[name] != value:
            raise MisError(
                f"the records in {records.folder} were made with data.{name} {made[name]}", got=value, do=REMEDY
            )


def summary(records: Records) -> Sequence[str]:
    """Return what a command says of records that it made: the cases that were not used, a line each, and the rest."""
    told = [
        f"left out {case}: {reason}" if case else f"gone on over {reason}" for case, reason in records.left_out.items()
    ]
    parts = ", ".join(f"{len(getattr(records.split, part))} {name}" for part, name in PARTS.items())
    stored_mb = sum(stored.size_bytes for stored in records.cases.values()) / 1e6
    grid = " x ".join(map(str, records.shape))
    line = f"{records.folder}: {len(records.cases)} cases ({parts}) of {grid} voxels, {stored_mb:.0f} MB"
    return [*told, f"{line}; what is known of each: {records.folder / CHECK / PAGE}"]
