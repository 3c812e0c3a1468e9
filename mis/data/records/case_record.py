"""The record of one case: taken over where the case has not changed, else made."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mis.data.case import MODALITIES, REGIONS, Case, DataSet
from mis.data.check.case import CheckedCase, check_case
from mis.data.check.findings import Finding
from mis.data.check.fingerprint import files_sha256
from mis.data.records.index import FORMAT, IndexEntry, record_path
from mis.data.records.preprocess import Brain, moments, region_bits
from mis.data.records.reader import record_content
from mis.files import link_or_copy, new_file, read_json, write_json
from mis.params.data import DataParams

EarlierRecords = Sequence[tuple[Path, Mapping[str, IndexEntry]]]
"""Folders of records that were made before, each with its entries by case."""


@dataclass(frozen=True)
class CaseOutcome:
    """The result of preprocessing a case: its record, or why there is none.

    Attributes:
        case: The case.
        entry: The index's entry of its record; None where errors keep it out.
        findings: What is wrong with it.
    """

    case: Case
    entry: IndexEntry | None
    findings: tuple[Finding, ...]

    @property
    def content(self) -> tuple[str, ...]:
        """The hashes of its modalities and its label; none where it has no record."""
        return self.entry.content if self.entry else ()


def make_case_record(
    case: Case, *, data: DataSet, params: DataParams, folder: Path, earlier: EarlierRecords
) -> CaseOutcome:
    """Take over a case's record or write it, and note its entry beside it for a call that goes on after a kill.

    Args:
        case: The case.
        data: The data set that it is from.
        params: What its record depends on.
        folder: The unfinished folder of the records.
        earlier: Records that may be taken over where the case's files and parameters are the same.
    """
    note = folder / f"{case.id}.json"
    known = ((folder, _read_note(note)), *((source, entries.get(case.id)) for source, entries in earlier))
    candidates = [(source, entry) for source, entry in known if entry]
    key = record_key(files_sha256(case), data, params) if candidates else ""
    for source, entry in candidates:
        if entry.key == key and _is_intact(source, case, entry):
            if source != folder:
                link_or_copy(record_path(source, case.id), record_path(folder, case.id))
                write_json(note, entry.to_json())
            return CaseOutcome(case, entry, entry.findings)
    checked = check_case(case, data, params)
    if not checked.usable:
        return CaseOutcome(case, None, checked.findings)
    entry = write_case(checked, data, params, folder)
    write_json(note, entry.to_json())
    return CaseOutcome(case, entry, entry.findings)


def _read_note(note: Path) -> IndexEntry | None:
    try:
        return IndexEntry.from_json(read_json(note)) if note.is_file() else None
    except (OSError, ValueError, KeyError, TypeError):  # of another version, or cut short with the disk full
        return None


def record_key(source_sha256: str, data: DataSet, params: DataParams) -> str:
    """Return a hash of all that a case's record depends on: its files, and the parameters that change it."""
    relevant = params.model_dump(mode="json", include={"spacing_mm", "other_spacing", "crop", "compression"})
    content = (FORMAT, source_sha256, relevant, data.regions, data.label_values)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_intact(folder: Path, case: Case, entry: IndexEntry) -> bool:
    """Return whether a case's record is there with the content that its entry says."""
    path = record_path(folder, case.id)
    if not path.is_file():
        return False
    content = record_content(np.fromfile(path, np.uint8))
    return hashlib.sha256(content.tobytes()).hexdigest() == entry.record_sha256


def write_case(checked: CheckedCase, data: DataSet, params: DataParams, folder: Path) -> IndexEntry:
    """Write a case's record, whole or not at all, and return its entry.

    Args:
        checked: A usable case with a label.
        data: The data set that it is from.
        params: Whether the record is compressed, and what else it depends on.
        folder: The folder of the records.
    """
    # Imported late: the command says first what is wrong with the data set.
    from mis.data.records.serialize import serialize, write_record

    brain, geometry = checked.brain, checked.geometry
    assert brain is not None and brain.label is not None and geometry is not None  # noqa: S101, PT018 - it is usable
    bits = region_bits(brain.label, data.regions)
    serialized = serialize(brain, bits, compress=params.compression == "zlib")
    path = record_path(folder, checked.case.id)
    with new_file(path) as unfinished:
        write_record(unfinished, serialized)
    return IndexEntry(
        key=record_key(checked.sha256, data, params),
        source_sha256=checked.sha256,
        content=checked.content,
        record_sha256=hashlib.sha256(serialized).hexdigest(),
        size_bytes=path.stat().st_size,
        geometry=geometry,
        statistics=_statistics(brain, bits),
        findings=checked.findings,
    )


def _statistics(brain: Brain, bits: NDArray[np.uint8]) -> dict[str, object]:
    """Return the number of voxels of the brain and of each region, and each modality's statistics over the brain."""
    mean, deviation = moments(brain.values)
    figures = {"mean": mean, "std": deviation, "min": brain.values.min(axis=0), "max": brain.values.max(axis=0)}
    by_modality = {
        modality: {name: float(values[number]) for name, values in figures.items()}
        for number, modality in enumerate(MODALITIES)
    }
    regions = {region: int(np.count_nonzero(bits & (1 << bit))) for bit, region in enumerate(REGIONS)}
    return {"brain_voxels": len(brain.values), **regions, **by_modality}
