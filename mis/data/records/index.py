"""The index of a folder of records: what is known of all of them together, and of each case.

A shard is one case: shuffling moves names and not volumes, workers share the cases evenly, a changed case is
one file, and some 12 MB are enough for one read of a parallel file system. A file has a checksum, TFRecord's own.

A record holds the box of the brain: which of its voxels are brain (a bit each), their standardised intensities as
float16, and for every voxel of the box the regions that it belongs to (a bit each, together compressed).
Outside of the brain the intensities are 0, so that nothing is lost there; within, float16 rounds by at most
1/2048 of the value, 0.0005 standard deviations at one, far below the noise of the scanner.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mis.data.case import MODALITIES, REGIONS, WHOLE_TUMOR
from mis.data.check.findings import Finding, from_json, to_json
from mis.data.geometry import Geometry
from mis.data.split import Split, fold_of, write_split
from mis.files import write_json
from mis.params.data import DataParams
from mis.params.train import TrainParams

FORMAT = 3
"""The version of the records. It changes whenever older ones cannot be read, or would be made otherwise."""

INDEX = "index.json"
SPLIT = "split.json"


@dataclass(frozen=True)
class IndexEntry:
    """What the index knows of a case.

    Attributes:
        key: A hash of the case's files, and of the parameters that its record depends on.
        source_sha256: The hash of the case's files.
        content: The hashes of its modalities and its label, see `mis.data.check.fingerprint.content_sha256`.
        record_sha256: The hash of its record's content.
        size_bytes: The size of its record's file.
        geometry: Where the box lies in the grid of the file.
        statistics: `brain_voxels`, the number of voxels of each region by its name, and for each modality by its
            name the `mean`, `std`, `min` and `max` of the brain in the scanner's units.
        findings: The warnings of the check.
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
        """Return the entry as JSON values, which `from_json` reads."""
        return {**vars(self), "geometry": self.geometry.to_json(), "findings": to_json(self.findings)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "IndexEntry":
        """Return the entry that `to_json` wrote."""
        geometry, findings = Geometry.from_json(values["geometry"]), from_json(values["findings"])
        content = tuple(values["content"])
        return cls(**{**values, "content": content, "geometry": geometry, "findings": findings})


@dataclass(frozen=True)
class Records:
    """A folder of records.

    Attributes:
        folder: The folder of the cases' files and of the index.
        regions: Names of the target's channels.
        shape: The grid (x, y, z) to which every case is cropped or padded when it is read whole.
        split: Which case is in which part.
        digest: A hash of every record, the regions, the grid and the split: of all that a training depends on.
        params: The parameters that they were made with.
        cases: The index's entry of each case, by name.
        excluded: The errors of each case that has no record because of them; those of the data set under "".
        data_hash: DVC's hash of the data set that they were made from; None where it is not versioned.
        in_memory: The content of each case's record, uint8 (byte,), where it is held in the node's memory; None
            where records are read from their files.
    """

    folder: Path
    regions: tuple[str, ...]
    shape: tuple[int, int, int]
    split: Split
    digest: str
    params: DataParams
    cases: Mapping[str, IndexEntry] = field(repr=False, compare=False)
    excluded: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    data_hash: str | None = None
    in_memory: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the image's channels."""
        return MODALITIES

    @property
    def bits(self) -> tuple[int, ...]:
        """The bit of each region in a record's label."""
        return tuple(REGIONS.index(region) for region in self.regions)

    @property
    def left_out(self) -> dict[str, str]:
        """The cases without a record, each with its errors as `rule: value`; "" stands for the data set."""
        return {
            case: "; ".join(f"{finding.rule}: {finding.value}" for finding in findings)
            for case, findings in self.excluded.items()
        }

    def split_for(self, train: TrainParams) -> Split:
        """Return the split of a single training: that of its fold, see `mis.data.split.fold_of`, where there are folds.

        Raises:
            MisError: There are fewer patients than folds.
        """
        return self.split if train.folds is None else self._fold(train.folds, train.fold)

    def cases_of_folds(self, folds: int) -> list[tuple[str, ...]]:
        """Return the cases that are validated on in each of so many folds.

        Raises:
            MisError: There are fewer patients than folds.
        """
        return [self._fold(folds, fold).val for fold in range(folds)]

    def _fold(self, folds: int, fold: int) -> Split:
        return fold_of(self.split, folds, fold, self.params.split.seed)

    def path(self, case: str) -> Path:
        """Return the file of a case's record."""
        return record_path(self.folder, case)


def target_regions(params: DataParams) -> tuple[str, ...]:
    """Return the regions that are the target's channels: all of them, or the whole tumour alone."""
    return REGIONS if params.target == "regions" else (WHOLE_TUMOR,)


def record_path(folder: Path, case: str) -> Path:
    """Return the file of a case's record in a folder of records."""
    return folder / f"{case}.tfrecord"


def write_index(records: Records) -> None:
    """Write the index and the split into the folder of the records, for `mis.data.records.reader.read_records`."""
    index = {
        "format": FORMAT,
        "modalities": records.modalities,
        "regions": records.regions,
        "stored_regions": REGIONS,
        "shape": records.shape,
        "digest": records.digest,
        "params": records.params.model_dump(mode="json"),
        "excluded": {case: to_json(findings) for case, findings in records.excluded.items()},
        "data_hash": records.data_hash,
        "cases": {case: entry.to_json() for case, entry in records.cases.items()},
    }
    write_split(records.split, records.folder / SPLIT)
    write_json(records.folder / INDEX, index)
