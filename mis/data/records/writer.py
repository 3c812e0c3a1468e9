"""From a data set to its records."""

import hashlib
import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mis.data.case import MODALITIES, REGIONS, Case, DataSet
from mis.data.check.dataset import repeated_images
from mis.data.check.findings import Finding, errors, ordered, write_tables
from mis.data.check.integrity import Examined, check_command, examine, refusal, source_sha256
from mis.data.parallel import for_each
from mis.data.records.index import (
    CHECK,
    FORMAT,
    INDEX,
    SPLIT,
    Records,
    Stored,
    learnt_regions,
    read_records,
    read_stored,
    record_path,
    write_index,
)
from mis.data.records.preprocess import Brain, moments, region_bits, standardise
from mis.data.split import LEAST, Split, split_cases
from mis.errors import MisError
from mis.files import exclusive_lock, link_or_copy, new_file, new_folder, read_json, write_json
from mis.params.data import DataParams


@dataclass(frozen=True)
class Outcome:
    """What became of a case: its record, or why there is none."""

    case: Case
    stored: Stored | None
    findings: tuple[Finding, ...]

    @property
    def content(self) -> tuple[str, ...]:
        """The hash of each modality, none where it could not be used."""
        return self.stored.content if self.stored else ()


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

    A case is taken over from the records of before, or from a call that was killed, where its files and the
    parameters that its record depends on are the same.

    Args:
        data: The data set.
        params: What the records shall be.
        folder: Where they go; what is there is replaced once they are whole.
        jobs: Cases at once; each takes some 0.6 GB at 240 x 240 x 155.
        progress: Whether to show a progress bar.
        data_hash: See `Records`.
        refused: The folder of the tables where it refuses the data set; `folder` has those of what it made.

    Raises:
        MisError: Cases have errors and `data.skip_bad_cases` is false, too few are left, or another process is
            making the same records. `folder` is then as it was, and what was made is not made again.
    """
    running = MisError("records must be made by one process at a time", got=f"another one that makes {folder}")
    with (
        exclusive_lock(folder.with_name(f".{folder.name}.making"), running),
        new_folder(folder, go_on=True) as unfinished,
    ):
        before = ((unfinished, read_stored(unfinished)), (folder, read_stored(folder)))
        make = partial(_make, data=data, params=params, folder=unfinished, before=before)
        # Threads: unpacking and arithmetic release the interpreter's lock.
        outcomes = for_each(make, data.cases, ThreadPoolExecutor(jobs), told="preprocess", progress=progress)
        repeated = repeated_images((one.case, one.content) for one in outcomes)
        findings = ordered((*data.findings, *(found for one in outcomes for found in one.findings), *repeated))
        wrong = [finding for finding in errors(findings) if finding.trained_on]
        bad = {finding.case for finding in wrong}
        kept = sorted(outcomes, key=lambda one: one.case.id)
        used = {one.case.id: one.stored for one in kept if one.stored and one.case.id not in bad}
        patients = {one.case.patient for one in kept if one.case.id in used}
        if wrong and (not params.skip_bad_cases or len(patients) < LEAST):
            page = refused and _write_refusal(refused, data, findings)
            raise _too_few(data, len(patients), page) if params.skip_bad_cases else refusal(data, wrong, page)
        split = split_cases([one.case for one in kept if one.case.id in used], params.split)
        left_out = {case: "; ".join(_told(one) for one in wrong if one.case == case) for case in sorted(bad)}
        learnt = _learnt(used, split, params)
        _finish(Records(unfinished, *learnt, cases=used, left_out=left_out, data_hash=data_hash), findings)
    return read_records(folder)


def _write_refusal(folder: Path, data: DataSet, findings: Sequence[Finding]) -> Path:
    """Write what was found where nothing is made, and return the page."""
    return write_tables(folder, findings, [], {"root": str(data.root), "layout": data.layout, "verdict": "refused"})


def _too_few(data: DataSet, patients: int, page: Path | None) -> MisError:
    rule = f"{data.root}: a split needs {LEAST} patients without errors"
    return MisError(rule, got=patients, do=f"{page or check_command(data)} lists what is wrong with the others")


def _told(finding: Finding) -> str:
    """Return a finding without the name of the case, which stands before it."""
    return str(finding).removeprefix(f"{finding.case}: ")


def _learnt(
    used: Mapping[str, Stored], split: Split, params: DataParams
) -> tuple[tuple[str, ...], tuple[int, int, int], Split, str, DataParams]:
    """Return what depends on all cases together: regions, grid, split, digest, parameters."""
    regions, shape = learnt_regions(params), _common_shape(used, params)
    return regions, shape, split, _digest(used, split, regions, shape), params


def _finish(records: Records, findings: Sequence[Finding]) -> None:
    """Write the index, and remove what belongs to no case: in this order, so that a case is always noted."""
    facts = {"cases": len(records.cases), "left_out": len(records.left_out)}
    rows = [{"case": case, **stored.statistics} for case, stored in records.cases.items()]
    write_tables(records.folder / CHECK, findings, rows, facts)
    write_index(records)
    wanted = {record_path(records.folder, case) for case in records.cases}
    wanted |= {records.folder / name for name in (INDEX, SPLIT, CHECK)}
    for path in set(records.folder.iterdir()) - wanted:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _make(
    case: Case,
    *,
    data: DataSet,
    params: DataParams,
    folder: Path,
    before: Sequence[tuple[Path, Mapping[str, Stored]]],
) -> Outcome:
    """Take over a case's record or write it, and note it beside it."""
    note = folder / f"{case.id}.json"
    noted = ((folder, _noted(note)), *((source, known.get(case.id)) for source, known in before))
    candidates = [(source, stored) for source, stored in noted if stored]
    key = _key(source_sha256(case), data, params) if candidates else ""
    for source, stored in candidates:
        if stored.key == key and _is_whole(source, case, stored):
            if source != folder:
                link_or_copy(record_path(source, case.id), record_path(folder, case.id))
                write_json(note, stored.to_json())
            return Outcome(case, stored, stored.findings)
    examined = examine(case, data, params)
    if not examined.usable:
        return Outcome(case, None, examined.findings)
    stored = _write(examined, data, params, folder)
    write_json(note, stored.to_json())
    return Outcome(case, stored, stored.findings)


def _noted(note: Path) -> Stored | None:
    try:
        return Stored.from_json(read_json(note)) if note.is_file() else None
    except (OSError, ValueError, KeyError, TypeError):  # of another version, or cut short with the disk full
        return None


def _key(sha256: str, data: DataSet, params: DataParams) -> str:
    """Return a hash of all that a case's record depends on."""
    own = params.model_dump(mode="json", include={"spacing_mm", "other_spacing", "crop", "compression"})
    content = (FORMAT, sha256, own, data.regions, data.label_values)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_whole(folder: Path, case: Case, stored: Stored) -> bool:
    path = record_path(folder, case.id)
    return path.is_file() and hashlib.sha256(path.read_bytes()[12:-4]).hexdigest() == stored.record_sha256


def _write(examined: Examined, data: DataSet, params: DataParams, folder: Path) -> Stored:
    """Write a case's record, whole or not at all, and return what the index says of it."""
    case, brain, geometry = examined.case, examined.brain, examined.geometry
    assert brain is not None and brain.label is not None and geometry is not None  # noqa: S101, PT018 - it is usable
    bits = region_bits(brain.label, data.regions)
    serialized = _serialize(brain, bits, compress=params.compression == "zlib")
    path = record_path(folder, case.id)
    with new_file(path) as unfinished:
        _write_record(unfinished, serialized)
    return Stored(
        key=_key(examined.sha256, data, params),
        source_sha256=examined.sha256,
        content=examined.content,
        record_sha256=hashlib.sha256(serialized).hexdigest(),
        size_bytes=path.stat().st_size,
        geometry=geometry,
        statistics=_statistics(brain, bits),
        findings=examined.findings,
    )


def _statistics(brain: Brain, bits: NDArray[np.uint8]) -> dict[str, object]:
    mean, deviation = moments(brain.values)
    figures = (mean, deviation, brain.values.min(axis=0), brain.values.max(axis=0))
    by_modality = {
        name: dict(zip(("mean", "std", "min", "max"), (float(figure[number]) for figure in figures), strict=True))
        for number, name in enumerate(MODALITIES)
    }
    regions = {region: int(np.count_nonzero(bits & (1 << bit))) for bit, region in enumerate(REGIONS)}
    return {"brain_voxels": len(brain.values), **regions, **by_modality}


def _serialize(brain: Brain, bits: NDArray[np.uint8], *, compress: bool) -> bytes:
    # Imported late, here and below: the command says first what is wrong with the data set.
    import tensorflow as tf

    def stored(content: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    # What float16 cannot hold would be infinite; a voxel 65 504 standard deviations off is a fault of the file.
    image = np.clip(standardise(brain.values), -65504, 65504).astype(np.float16).tobytes()
    shape = tf.train.Feature(int64_list=tf.train.Int64List(value=brain.mask.shape))
    features = {
        "shape": shape,
        "mask": stored(np.packbits(brain.mask).tobytes()),
        "image": stored(zlib.compress(image, 1) if compress else image),
        "label": stored(zlib.compress(bits.tobytes(), 6)),
    }
    # Deterministic: otherwise the order of the features differs from process to process, and so does the hash.
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _write_record(path: Path, serialized: bytes) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(serialized)


def _common_shape(used: Mapping[str, Stored], params: DataParams) -> tuple[int, int, int]:
    """Return the grid that every case is brought to: that of the largest, in each axis a multiple."""
    largest = [max(stored.geometry.size[axis] for stored in used.values()) for axis in range(3)]
    step = params.multiple
    x, y, z = (step * (n // step if params.fit == "crop" else -(-n // step)) for n in largest)
    if not min(x, y, z):
        raise MisError(
            f"every axis must have at least data.multiple = {step} voxels to be cropped to a multiple of it",
            got=tuple(largest),
            do="set data.fit to pad",
        )
    return x, y, z


def _digest(used: Mapping[str, Stored], split: Split, regions: Sequence[str], shape: Sequence[int]) -> str:
    """Return one hash of what a training depends on: two that differ must not share a checkpoint."""
    content = (sorted((case, one.record_sha256) for case, one in used.items()), asdict(split), regions, shape)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
