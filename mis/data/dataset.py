"""The tf.data input pipeline.

Every batch is full. Where the cases do not fill the last one, it is filled up with cases that
have sample weight 0, and the weights of the others grow so that the batch's loss stays their mean.
So each case counts exactly once an epoch in the loss, its gradient and the metrics (batch norm's
statistics see the fillers too, the same on any number of devices), shapes are static, and no replica is left without a
sample, however many there are.
"""

from collections.abc import Sequence

import tensorflow as tf

from mis.data.records import Records

READERS = 2
"""Cases that are read at once; two batches are held ready beside."""


def steps_per_epoch(cases: int, batch_size: int) -> int:
    """Return how many batches hold `cases`.

    >>> steps_per_epoch(17, 4)
    5
    """
    return -(-cases // batch_size)


def training_batches(
    records: Records, cases: Sequence[str], batch_size: int, *, seed: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """Return batches without end, every case once in each `steps_per_epoch` of them.

    The order within an epoch depends on the seed and the epoch's number alone, so that a training
    that is resumed at `first_epoch` sees what an undisturbed one sees.

    Args:
        records: Where the cases are.
        cases: Their names.
        batch_size: The global batch, over all replicas.
        seed: Of the order.
        first_epoch: The epoch to begin with.

    Returns:
        A data set of (image, target, weight): float32 (batch, x, y, z, modality), float32
        (batch, x, y, z, region) of 0 and 1, float32 (batch,).
    """
    paths = _paths(records, cases)

    def epoch_of(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(cases)), seed=tf.stack([seed, number]))
        return _filled(tf.gather(paths, order), batch_size)

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max).map(lambda number: tf.cast(number, tf.int32))
    return _read(epochs.flat_map(epoch_of), records, batch_size)


def case_batches(records: Records, cases: Sequence[str], batch_size: int) -> tf.data.Dataset:
    """Return every case once, in order; see `training_batches` for the elements."""
    return _read(_filled(_paths(records, cases), batch_size), records, batch_size)


def _paths(records: Records, cases: Sequence[str]) -> tf.Tensor:
    return tf.constant([str(records.path(case)) for case in cases])


def _filled(paths: tf.Tensor, batch_size: int) -> tf.data.Dataset:
    """Return (path, weight) for one epoch of full batches."""
    cases = paths.shape[0]
    padding = -cases % batch_size
    in_last = batch_size - padding
    index = tf.range(cases + padding)
    weight = tf.where(index >= cases, 0.0, tf.where(index >= cases - in_last, batch_size / in_last, 1.0))
    return tf.data.Dataset.from_tensor_slices((tf.gather(paths, index % cases), weight))


def _read(files: tf.data.Dataset, records: Records, batch_size: int) -> tf.data.Dataset:
    def read(path: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        serialized = tf.data.TFRecordDataset(path).get_single_element()
        return *_parse(serialized, records), weight

    # Each training builds and drops its own pipeline, and tf.data's autotuner is slow to go: with it the
    # end of one training in three took 5 s (TensorFlow 2.21, two processes on two cores).
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = files.map(read, num_parallel_calls=READERS, deterministic=True)
    return batches.batch(batch_size, drop_remainder=True).prefetch(2).with_options(options)


def _parse(serialized: tf.Tensor, records: Records) -> tuple[tf.Tensor, tf.Tensor]:
    feature = tf.io.FixedLenFeature([], tf.string)
    stored = tf.io.parse_single_example(serialized, {"image": feature, "target": feature})
    image = tf.reshape(tf.io.decode_raw(stored["image"], tf.float16), (*records.shape, len(records.modalities)))
    target = tf.reshape(tf.io.decode_raw(stored["target"], tf.uint8), (*records.shape, len(records.regions)))
    return tf.cast(image, tf.float32), tf.cast(target, tf.float32)
