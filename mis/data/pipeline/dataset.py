"""The tf.data input pipeline.

Every batch is full. Where the cases do not fill the last one, it is filled up with cases that
have sample weight 0, and the weights of the others grow so that the batch's loss stays their mean.
So each case counts exactly once an epoch in the loss, its gradient and the metrics (batch norm's
statistics see the fillers too, the same on any number of devices), shapes are static, and no replica is left without a
sample, however many there are.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from mis.data.pipeline.augment import augment, is_any, sample_change
from mis.data.pipeline.decode import Voxels, decode, whole_start, window
from mis.data.pipeline.patches import patch_start
from mis.data.records.index import REMEDY, Records
from mis.errors import MisError
from mis.params.train import TrainParams
from mis.settings import cores

Seen = Callable[[Voxels, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Returns what is seen of a case, image and target, from the number of this sight of it."""

READERS = max(2, min(8, cores()))
"""Cases that are read at once, each of some 60 MB; two batches for each replica are held ready beside."""


@dataclass(frozen=True)
class Part:
    """What one of several workers reads: its slice of every global batch, and nothing else.

    Attributes:
        worker: Which worker, from 0.
        workers: How many there are.
        replicas: Devices of each worker; its slice comes in as many batches, one after another.
    """

    worker: int = 0
    workers: int = 1
    replicas: int = 1

    @classmethod
    def of(cls, context: tf.distribute.InputContext) -> "Part":
        """Return the part that a strategy asks for."""
        workers = context.num_input_pipelines
        return cls(context.input_pipeline_id, workers, context.num_replicas_in_sync // workers)


WHOLE = Part()


def steps_per_epoch(cases: int, batch_size: int) -> int:
    """Return how many batches hold `cases`.

    >>> steps_per_epoch(17, 4)
    5
    """
    return -(-cases // batch_size)


def training_batches(
    records: Records, cases: Sequence[str], params: TrainParams, *, first_epoch: int = 0, part: Part = WHOLE
) -> tf.data.Dataset:
    """Return batches without end, every case once in each `steps_per_epoch` of them.

    The patch of a case and how it is augmented depend on the seed, the epoch's number and the case's name alone,
    the order within an epoch on how many cases there are as well: a training that is resumed at `first_epoch`, or
    spread over other devices, sees what an undisturbed one sees.

    Args:
        records: Where the cases are.
        cases: Their names.
        params: Batch (the global one, over all replicas of all workers; a multiple of their number), seed,
            patches and augmentation.
        first_epoch: The epoch to begin with.
        part: What is read of it; batches are those of one replica.

    Returns:
        A data set of (image, target, weight): float32 (batch, x, y, z, modality), float32
        (batch, x, y, z, region) of 0 and 1, float32 (batch,). Its grid is the patch's, or that of the records.
    """
    paths, size, is_augmented = _paths(records, cases), params.patch_size, is_any(params.augment)

    keys = tf.constant([_key(case) for case in cases], tf.int64)

    def epoch_of(number: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.cast(params.seed, tf.int32), tf.cast(number, tf.int32)])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(cases)), seed=seed)
        return _filled(tf.gather(paths, order), tf.gather(keys, order) + number, params.batch_size, part)

    def seen(voxels: Voxels, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if size is None and not is_augmented:
            return _whole(voxels, records)
        seed = tf.stack([tf.constant(params.seed, tf.int64), number])
        where, how = (tf.random.experimental.stateless_fold_in(seed, step) for step in range(2))
        if size is None:
            image, target = _whole(voxels, records)
        else:
            start = patch_start(voxels, size, records.bits, params.foreground_share, where)
            image, target = window(voxels, start, size, records.bits)
        return augment(image, target, sample_change(params.augment, image.shape[:3], how))

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return _read(epochs.flat_map(epoch_of), records, params.batch_size, part, seen)


def case_batches(
    records: Records, cases: Sequence[str], batch_size: int, *, passes: int | None = 1, part: Part = WHOLE
) -> tf.data.Dataset:
    """Return every case, whole, once in each pass, in order; `passes` None has no end; else see `training_batches`."""
    paths = _paths(records, cases)
    files = _filled(paths, tf.range(len(cases), dtype=tf.int64), batch_size, part).repeat(passes)
    return _read(files, records, batch_size, part, lambda voxels, _: _whole(voxels, records))


def _paths(records: Records, cases: Sequence[str]) -> tf.Tensor:
    return tf.constant([str(records.path(case)) for case in cases])


def _key(case: str) -> int:
    """Return a number below 2**62 for a case's name, from which those of its epochs go on."""
    return int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "big") >> 2


def _filled(paths: tf.Tensor, seeds: tf.Tensor, batch_size: int, part: Part) -> tf.data.Dataset:
    """Return (path, seed, weight) for one epoch of full batches, or for a worker's part of each."""
    cases = paths.shape[0]
    padding = -cases % batch_size
    in_last = batch_size - padding
    index = tf.range(cases + padding)
    weight = tf.where(index >= cases, 0.0, tf.where(index >= cases - in_last, batch_size / in_last, 1.0))

    def own(values: tf.Tensor) -> tf.Tensor:
        of_workers = tf.reshape(values, (-1, part.workers, batch_size // part.workers))
        return tf.reshape(of_workers[:, part.worker], (-1,))

    taken = index % cases
    return tf.data.Dataset.from_tensor_slices((own(tf.gather(paths, taken)), own(tf.gather(seeds, taken)), own(weight)))


def _read(files: tf.data.Dataset, records: Records, batch_size: int, part: Part, seen: Seen) -> tf.data.Dataset:
    def read(path: tf.Tensor, seed: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return *seen(decode(_content(path, records), records), seed), weight

    # Each training builds and drops its own pipeline, and tf.data's autotuner is slow to go: with it the
    # end of one training in three took 5 s (TensorFlow 2.21, two processes on two cores).
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = files.map(read, num_parallel_calls=READERS, deterministic=True)
    batches = batches.batch(batch_size // (part.workers * part.replicas), drop_remainder=True)
    return batches.prefetch(2 * part.replicas).with_options(options)


def _whole(voxels: Voxels, records: Records) -> tuple[tf.Tensor, tf.Tensor]:
    return window(voxels, whole_start(tf.shape(voxels.row), records.shape), records.shape, records.bits)


def _content(path: tf.Tensor, records: Records) -> tf.Tensor:
    """Return a case's record, from memory where it is there."""
    contents = records.in_memory
    if contents is None:
        return tf.data.TFRecordDataset(path).get_single_element()

    def held(path: bytes) -> bytes:
        return contents[Path(path.decode()).stem].tobytes()

    return tf.ensure_shape(tf.numpy_function(held, [path], tf.string, stateful=False), ())


@contextmanager
def told_of_damage(records: Records) -> Iterator[None]:
    """Say in one line that a record's content is not what was written, where reading it fails."""
    try:
        yield
    except tf.errors.DataLossError as error:
        raise MisError(
            f"the records in {records.folder} must be as they were written: {error.message.splitlines()[0]}", do=REMEDY
        ) from None
