"""From a data set to its records."""

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
from mis.data.records import Records, read_records, record_path, write_index
from mis.data.split import Split, split_cases
from mis.errors import MisError
from mis.files import new_folder
from mis.params import DataParams


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
        shape, digest = _common_shape(written), _digest(written, split, tuple(regions))
        write_index(Records(unfinished, data.modalities, tuple(regions), shape, split, digest, params))
    return read_records(folder)


def _in_parallel(
    write: Callable[[Case], _Written], cases: Sequence[Case], jobs: int, progress: bool
) -> dict[str, _Written]:
    """Call `write` for every case in threads: unpacking and arithmetic release the interpreter's lock."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(write, case): case.id for case in cases}
        try:
            with tqdm(total=len(waiting), desc="preprocess", unit="case", disable=not progress) as bar:
                for future in as_completed(waiting):
                    future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return {case: future.result() for future, case in waiting.items()}


def _write_case(case: Case, *, data: DataSet, params: DataParams, folder: Path) -> _Written:
    volume = load_case(case, data)
    regions = target_regions(data.regions, params.target)
    try:
        image = fit_grid(standardise(volume.image), params.multiple, params.fit).astype(np.float16)
    except ValueError as error:
        raise MisError(f"{case.images[0]}: {error}", do="set data.fit to pad") from None
    target = fit_grid(region_channels(volume.label, regions), params.multiple, params.fit)
    serialized = _serialize(image, target)
    _write_record(record_path(folder, case.id), serialized)
    return _Written(image.shape[:3], hashlib.sha256(serialized).hexdigest())


def _serialize(image: NDArray[np.float16], target: NDArray[np.uint8]) -> bytes:
    # Imported late, here and below: the command says first what is wrong with the data set.
    import tensorflow as tf

    def stored(array: NDArray[np.generic]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[np.ascontiguousarray(array).tobytes()]))

    # Deterministic: otherwise the order of the two features differs from process to process, and so does the hash.
    features = tf.train.Features(feature={"image": stored(image), "target": stored(target)})
    serialized: bytes = tf.train.Example(features=features).SerializeToString(deterministic=True)
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


def _digest(written: Mapping[str, _Written], split: Split, regions: Sequence[str]) -> str:
    """Return one hash of what a training depends on: two that differ must not share a checkpoint."""
    content = (sorted((case, one.sha256) for case, one in written.items()), asdict(split), regions)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
