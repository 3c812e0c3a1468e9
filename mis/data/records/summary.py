"""What a command says of the records that it made."""

from collections.abc import Sequence
from pathlib import Path

from mis.data.check.tables import PAGE
from mis.data.check.wording import sentence
from mis.data.records.index import Records

PARTS = {"train": "to train on", "val": "for validation", "test": "to test"}
"""What each part of the split is for."""


def tables_folder(records: Path) -> Path:
    """Return the folder of the tables of a folder of records: beside it, as a training depends on the records alone."""
    return records.with_name(f"{records.name}-check")


def summary(records: Records) -> Sequence[str]:
    """Return the cases that were left out, a line each, and a line with the number of cases, the grid and the size."""
    left_out = []
    for case, findings in records.excluded.items():
        reason = "; ".join(sentence(finding, with_case=False) for finding in findings)
        left_out.append(f"left out {case}: {reason}" if case else f"gone on over {reason}")
    parts = ", ".join(f"{len(getattr(records.split, part))} {purpose}" for part, purpose in PARTS.items())
    size_mb = sum(entry.size_bytes for entry in records.cases.values()) / 1e6
    grid = " x ".join(map(str, records.shape))
    line = f"{records.folder}: {len(records.cases)} cases ({parts}) of {grid} voxels, {size_mb:.0f} MB"
    return [*left_out, f"{line}; what is known of each: {tables_folder(records.folder) / PAGE}"]
