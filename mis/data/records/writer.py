"""Preprocessing: a data set becomes a folder of records."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from mis.data.case import DataSet
from mis.data.check.duplicates import find_duplicates
from mis.data.check.findings import Finding, errors, sort_findings
from mis.data.check.tables import write_tables
from mis.data.check.wording import refused_for_errors, refused_for_too_few_patients
from mis.data.parallel import for_each
from mis.data.records.case_record import CaseOutcome, make_case_record
from mis.data.records.index import INDEX, SPLIT, IndexEntry, Records, record_path, target_regions, write_index
from mis.data.records.reader import read_entries, read_records
from mis.data.records.summary import tables_folder
from mis.data.split import MIN_PATIENTS, Split, split_cases
from mis.errors import MisError
from mis.files import exclusive_lock, new_folder
from mis.params.data import DataParams


def write_records(
    data: DataSet,
    params: DataParams,
    folder: Path,
    *,
    jobs: int,
    progress: bool = True,
    data_hash: str | None = None,
    refused: Path | None = None,
) -> Records:
    """Preprocess every labelled case that is new or has changed.

    A case's record is taken over from the earlier records, or from a call that was killed, where its files and the
    parameters that its record depends on are the same. The tables of the check are written beside the records, see
    `mis.data.records.summary.tables_folder`.

    Args:
        data: The data set.
        params: What the records shall be.
        folder: The folder of the records; what is there is replaced once they are complete.
        jobs: Cases at once; each takes some 0.6 GB at 240 x 240 x 155.
        progress: Whether to show a progress bar.
        data_hash: DVC's hash of the data set; None where it is not versioned.
        refused: The folder of the tables where the data set is refused; None writes none.

    Raises:
        MisError: Cases have errors and `data.skip_bad_cases` is false, too few are left, or another process is
            making the same records. `folder` is then as it was, and the next call makes no finished record again.
    """
    running = MisError("records must be made by one process at a time", got=f"another one that makes {folder}")
    with (
        exclusive_lock(folder.with_name(f".{folder.name}.making"), running),
        new_folder(folder, go_on=True) as unfinished,
    ):
        earlier = [(source, read_entries(source)) for source in (unfinished, folder)]
        make = partial(make_case_record, data=data, params=params, folder=unfinished, earlier=earlier)
        # Threads: unpacking and arithmetic release the interpreter's lock.
        pool = ThreadPoolExecutor(jobs)
        outcomes = for_each(make, data.cases, pool, description="preprocess", progress=progress)
        duplicates = find_duplicates((outcome.case, outcome.content) for outcome in outcomes)
        of_cases = (finding for outcome in outcomes for finding in outcome.findings)
        findings = sort_findings((*data.findings, *of_cases, *duplicates))
        used = _usable(outcomes, data, params, findings, refused)
        records = _records(used, findings, params, unfinished, data_hash)
        _write_tables(records, findings, tables_folder(folder))
        write_index(records)
        _remove_others(records)
    return read_records(folder)


def _training_errors(findings: Sequence[Finding]) -> list[Finding]:
    """Return the errors that matter to training."""
    return [finding for finding in errors(findings) if finding.trained_on]


def _usable(
    outcomes: Sequence[CaseOutcome],
    data: DataSet,
    params: DataParams,
    findings: Sequence[Finding],
    refused: Path | None,
) -> list[CaseOutcome]:
    """Return the cases without errors, by name.

    Raises:
        MisError: There are errors and they are not to be skipped, or too few patients are left.
    """
    wrong = _training_errors(findings)
    bad = {finding.case for finding in wrong}
    used = [outcome for outcome in outcomes if outcome.entry and outcome.case.id not in bad]
    patients = len({outcome.case.patient for outcome in used})
    if wrong and (not params.skip_bad_cases or patients < MIN_PATIENTS):
        facts = {"root": str(data.root), "layout": data.layout, "verdict": "refused"}
        page = write_tables(refused, findings, [], facts) if refused else None
        if params.skip_bad_cases:
            raise refused_for_too_few_patients(data, MIN_PATIENTS, patients, page)
        raise refused_for_errors(data, wrong, page)
    return sorted(used, key=lambda outcome: outcome.case.id)


def _records(
    used: Sequence[CaseOutcome],
    findings: Sequence[Finding],
    params: DataParams,
    folder: Path,
    data_hash: str | None,
) -> Records:
    """Return the records of the cases that are used, with what depends on all of them together."""
    split = split_cases([outcome.case for outcome in used], params.split)
    entries = {outcome.case.id: outcome.entry for outcome in used if outcome.entry}
    regions, shape = target_regions(params), _common_shape(entries, params)
    wrong = _training_errors(findings)
    return Records(
        folder=folder,
        regions=regions,
        shape=shape,
        split=split,
        digest=_digest(entries, split, regions, shape),
        params=params,
        cases=entries,
        excluded={
            case: tuple(finding for finding in wrong if finding.case == case)
            for case in sorted({finding.case for finding in wrong})
        },
        data_hash=data_hash,
    )


def _write_tables(records: Records, findings: Sequence[Finding], folder: Path) -> None:
    facts = {"cases": len(records.cases), "left_out": len(records.excluded)}
    rows = [{"case": case, **entry.statistics} for case, entry in records.cases.items()]
    write_tables(folder, findings, rows, facts)


def _remove_others(records: Records) -> None:
    """Remove what belongs to no case, the notes too: after the index is written, so that a case is always noted."""
    wanted = {record_path(records.folder, case) for case in records.cases}
    wanted |= {records.folder / name for name in (INDEX, SPLIT)}
    for path in set(records.folder.iterdir()) - wanted:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _common_shape(entries: Mapping[str, IndexEntry], params: DataParams) -> tuple[int, int, int]:
    """Return the grid that every case is brought to: that of the largest, in each axis a multiple."""
    largest = [max(entry.geometry.size[axis] for entry in entries.values()) for axis in range(3)]
    step = params.multiple
    x, y, z = (step * (n // step if params.fit == "crop" else -(-n // step)) for n in largest)
    if not min(x, y, z):
        raise MisError(
            f"every axis must have at least data.multiple = {step} voxels to be cropped to a multiple of it",
            got=tuple(largest),
            do="set data.fit to pad",
        )
    return x, y, z


def _digest(entries: Mapping[str, IndexEntry], split: Split, regions: Sequence[str], shape: Sequence[int]) -> str:
    """Return one hash of what a training depends on: two trainings that differ in it must not share a checkpoint."""
    records = sorted((case, entry.record_sha256) for case, entry in entries.items())
    return hashlib.sha256(json.dumps((records, asdict(split), regions, shape)).encode()).hexdigest()
