"""The tf.data input pipeline.

Every batch is full. Where the cases do not fill the last one, it is filled up with cases that
have sample weight 0, and the weights of the others grow so that the batch's loss stays their mean.
So each case counts exactly once an epoch in the loss, its gradient and the metrics (batch norm's
statistics see the fillers too, the same on any number of devices), shapes are static, and no replica is left without a
sample, however many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from mis.data.records import Records

READERS = 2
"""Cases that are read at once; two batches for each replica are held ready beside."""


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
    records: Records, cases: Sequence[str], batch_size: int, *, seed: int, first_epoch: int = 0, part: Part = WHOLE
) -> tf.data.Dataset:
    """Return batches without end, every case once in each `steps_per_epoch` of them.

    The order within an epoch depends on the seed and the epoch's number alone, so that a training
    that is resumed at `first_epoch` sees what an undisturbed one sees.

    Args:
        records: Where the cases are.
        cases: Their names.
        batch_size: The global batch, over all replicas of all workers; a multiple of their number.
        seed: Of the order.
        first_epoch: The epoch to begin with.
        part: What is read of it; batches are those of one replica.

    Returns:
        A data set of (image, target, weight): float32 (batch, x, y, z, modality), float32
        (batch, x, y, z, region) of 0 and 1, float32 (batch,).
    """
    paths = _paths(records, cases)

    def epoch_of(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(cases)), seed=tf.stack([seed, number]))
        return _filled(tf.gather(paths, order), batch_size, part)

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max).map(lambda number: tf.cast(number, tf.int32))
    return _read(epochs.flat_map(epoch_of), records, batch_size, part)


def case_batches(
    records: Records, cases: Sequence[str], batch_size: int, *, passes: int | None = 1, part: Part = WHOLE
) -> tf.data.Dataset:
    """Return every case once in each pass, in order; `passes` None has no end; else see `training_batches`."""
    return _read(_filled(_paths(records, cases), batch_size, part).repeat(passes), records, batch_size, part)


def _paths(records: Records, cases: Sequence[str]) -> tf.Tensor:
    return tf.constant([str(records.path(case)) for case in cases])


def _filled(paths: tf.Tensor, batch_size: int, part: Part) -> tf.data.Dataset:
    """Return (path, weight) for one epoch of full batches, or for a worker's part of each."""
    cases = paths.shape[0]
    padding = -cases % batch_size
    in_last = batch_size - padding
    index = tf.range(cases + padding)
    weight = tf.where(index >= cases, 0.0, tf.where(index >= cases - in_last, batch_size / in_last, 1.0))

    def own(values: tf.Tensor) -> tf.Tensor:
        of_workers = tf.reshape(values, (-1, part.workers, batch_size // part.workers))
        return tf.reshape(of_workers[:, part.worker], (-1,))

    return tf.data.Dataset.from_tensor_slices((own(tf.gather(paths, index % cases)), own(weight)))


def _read(files: tf.data.Dataset, records: Records, batch_size: int, part: Part) -> tf.data.Dataset:
    def read(path: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return *_parse(_content(path, records), records), weight

    # Each training builds and drops its own pipeline, and tf.data's autotuner is slow to go: with it the
    # end of one training in three took 5 s (TensorFlow 2.21, two processes on two cores).
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = files.map(read, num_parallel_calls=READERS, deterministic=True)
    batches = batches.batch(batch_size // (part.workers * part.replicas), drop_remainder=True)
    return batches.prefetch(2 * part.replicas).with_options(options)


def _content(path: tf.Tensor, records: Records) -> tf.Tensor:
    """Return a case's record, from memory where it is there."""
    contents = records.in_memory
    if contents is None:
        return tf.data.TFRecordDataset(path).get_single_element()

    def held(path: bytes) -> bytes:
        return contents[Path(path.decode()).stem].tobytes()

    return tf.ensure_shape(tf.numpy_function(held, [path], tf.string, stateful=False), ())


def _parse(serialized: tf.Tensor, records: Records) -> tuple[tf.Tensor, tf.Tensor]:
    feature = tf.io.FixedLenFeature([], tf.string)
    stored = tf.io.parse_single_example(serialized, {"image": feature, "target": feature})
    image = tf.reshape(tf.io.decode_raw(stored["image"], tf.float16), (*records.shape, len(records.modalities)))
    target = tf.reshape(tf.io.decode_raw(stored["target"], tf.uint8), (*records.shape, len(records.regions)))
    return tf.cast(image, tf.float32), tf.cast(target, tf.float32)
