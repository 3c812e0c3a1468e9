"""Preprocessed cases on disk: one TFRecord file for each case, and an index.

A file for each case: shuffling moves names and not volumes, workers share the cases evenly, and a
changed case is one file. Intensities are stored as float16: standardised values lie within some
ten units of 0, where its rounding is below 0.005, far below the noise of the scanner.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mis.data.integrity import load_case
from mis.data.layouts import Case, DataSet
from mis.data.preprocess import fit_grid, region_channels, standardise, target_regions
from mis.data.split import Split, read_split, split_cases, write_split
from mis.errors import MisError
from mis.files import new_folder, write_json
from mis.params import DataParams

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
        return self.folder / f"{case}.tfrecord"


@dataclass(frozen=True)
class _Written:
    shape: tuple[int, ...]
    sha256: str


def write_records(data: DataSet, params: DataParams, folder: Path, *, jobs: int, progress: bool = True) -> Records:
    """Preprocess every labelled case.

    Args:
        data: The data set.
        params: Target, grid and split.
        folder: Where the records go; what is there is replaced.
        jobs: Cases at once.
        progress: Whether to show a progress bar.

    Raises:
        MisError: A case is not as its layout says, cannot be cropped, or comes to another shape
            than the first one; then `folder` is as it was.
    """
    split = split_cases(data.cases, params.split)
    regions = target_regions(data.regions, params.target)
    with new_folder(folder) as unfinished:
        write = partial(_write_case, data=data, params=params, folder=unfinished)
        written = _in_parallel(write, data.cases, jobs, progress)
        shape, digest = _common_shape(written), _digest(written)
        _write_index(Records(unfinished, data.modalities, tuple(regions), shape, split, digest))
    return read_records(folder)


def _in_parallel(
    write: Callable[[Case], _Written], cases: Sequence[Case], jobs: int, progress: bool
) -> dict[str, _Written]:
    """Call `write` for every case in threads: unpacking and arithmetic release the interpreter's lock."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(write, case): case.id for case in cases}
        try:
            done = tqdm(as_completed(waiting), total=len(waiting), desc="preprocess", unit="case", disable=not progress)
            return {waiting[future]: future.result() for future in done}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_case(case: Case, *, data: DataSet, params: DataParams, folder: Path) -> _Written:
    volume = load_case(case, data)
    regions = target_regions(data.regions, params.target)
    try:
        image = fit_grid(standardise(volume.image), params.multiple, params.fit).astype(np.float16)
    except ValueError as error:
        raise MisError(f"{case.images[0]}: {error}", do="set data.fit to pad") from None
    target = fit_grid(region_channels(volume.label, regions), params.multiple, params.fit)
    serialized = _serialize(image, target)
    _write_record(folder / f"{case.id}.tfrecord", serialized)
    return _Written(image.shape[:3], hashlib.sha256(serialized).hexdigest())


def _serialize(image: NDArray[np.float16], target: NDArray[np.uint8]) -> bytes:
    # Imported late, here and below: who only opens records (a search's driver) does without TensorFlow.
    import tensorflow as tf

    def stored(array: NDArray[np.generic]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[np.ascontiguousarray(array).tobytes()]))

    features = tf.train.Features(feature={"image": stored(image), "target": stored(target)})
    serialized: bytes = tf.train.Example(features=features).SerializeToString()
    return serialized


def _write_record(path: Path, serialized: bytes) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(serialized)


def _common_shape(written: Mapping[str, _Written]) -> tuple[int, int, int]:
    """Return the shape of all cases; full volumes make a batch only if they are alike."""
    (first, expected), *others = sorted(written.items())
    for case, other in others:
        if other.shape != expected.shape:
            raise MisError(
                f"all cases must have one shape, {expected.shape} as {first}", got=f"{other.shape} in {case}"
            )
    x, y, z = expected.shape
    return x, y, z


def _digest(written: Mapping[str, _Written]) -> str:
    """Return one hash of all records and their names."""
    return hashlib.sha256(json.dumps(sorted((case, one.sha256) for case, one in written.items())).encode()).hexdigest()


def _write_index(records: Records) -> None:
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
