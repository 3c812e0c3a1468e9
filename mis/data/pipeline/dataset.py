"""The tf.data input pipeline.

Every batch is full. Where the cases do not fill the last one, it is filled up with cases that
have sample weight 0, and the weights of the others grow so that the batch's loss stays their mean.
So each case counts exactly once an epoch in the loss, its gradient and the metrics (batch norm's
statistics see the fillers too, the same on any number of devices), shapes are static, and no replica is left without a
sample, however many there are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from mis.data.pipeline.augment import augment, is_active, sample_parameters
from mis.data.pipeline.decode import Voxels, decode, whole_case, window
from mis.data.pipeline.patches import patch_start
from mis.data.pipeline.seeds import name_number, named_seed
from mis.data.records import errors
from mis.data.records.index import Records
from mis.data.records.preprocess import MOST_FLOAT16
from mis.params.train import TrainParams
from mis.settings import cores

View = Callable[[Voxels, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Returns image and target of one sight of a case, from its voxels and the number of this sight, int64 ()."""

READERS_PER_REPLICA = 8
"""The most cases that are read at once for a replica, each of some 60 MB; two batches are held ready beside."""

as_written = tf.autograph.experimental.do_not_convert
"""Leaves out AutoGraph, which takes half a second to find that these functions have no control flow on tensors."""


@dataclass(frozen=True)
class Part:
    """What one of several workers reads: its slice of every global batch, and nothing else.

    Attributes:
        worker: The rank of the worker, from 0.
        workers: The number of workers.
        replicas: The number of devices of each worker; its slice comes in as many batches, one after another.
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


def readers(replicas: int = 1) -> int:
    """Return how many cases a process reads at once: as many as it has cores, up to a number for each replica."""
    return max(2, min(READERS_PER_REPLICA * replicas, cores()))


def steps_per_epoch(cases: int, batch_size: int) -> int:
    """Return how many batches hold `cases`.

    >>> steps_per_epoch(17, 4)
    5
    """
    return -(-cases // batch_size)


def training_batches(
    records: Records, cases: Sequence[str], params: TrainParams, *, first_step: int = 0, part: Part = WHOLE
) -> tf.data.Dataset:
    """Return batches without end, every case once in each `steps_per_epoch` of them.

    Where a case that is read gives several patches (`params.patches_per_case`), so many batches after one another have
    patches of the same cases, each batch one of each case; every case then comes once in so many times more batches.

    The patch of a case and how it is augmented depend on the seed, the number of the pass over all cases, and the
    case's name alone, the order within a pass on how many cases there are as well: a training that is resumed at
    `first_step`, or spread over other devices, sees what an undisturbed one sees.

    Args:
        records: The records that the cases are read from.
        cases: The names of the cases.
        params: The batch size (the global one, over all replicas of all workers; a multiple of their number), the seed,
            the patches and the augmentation.
        first_step: The number of the step to begin with, from 0.
        part: The part of each global batch that is read; the batches are those of one replica.

    Returns:
        A data set of (image, target, weight): float16 (batch, x, y, z, modality), uint8
        (batch, x, y, z, region) of 0 and 1, float32 (batch,). Its grid is the patch's, or that of the records.
    """
    paths = _paths(records, cases)
    numbers = tf.constant([name_number(case) for case in cases], tf.int64)

    def samples_of_pass(number: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.cast(params.seed, tf.int32), tf.cast(number, tf.int32)])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(cases)), seed=seed)
        return full_batches(tf.gather(paths, order), tf.gather(numbers, order) + number, params.batch_size, part)

    each = params.patches_per_case
    first_batch, step_of_batch = divmod(first_step, each)
    first_pass, batches = divmod(first_batch, steps_per_epoch(len(cases), params.batch_size))
    passes = tf.data.Dataset.range(first_pass, tf.int64.max)
    samples = passes.flat_map(as_written(samples_of_pass)).skip(batches * params.batch_size // part.workers)
    if each == 1:
        return _read(samples, records, params.batch_size, part, _training_view(records, params))
    steps = _read_several(samples, records, params, part)
    return steps.skip(step_of_batch * part.replicas)


def _training_view(records: Records, params: TrainParams, patch: int = 0) -> View:
    """Return what a training sees of a case: the whole of it or a random patch, augmented.

    Args:
        records: The records.
        params: The patches and the augmentation.
        patch: The number of the patch, of several of one sight of the case.
    """
    patch_size, is_augmented = params.patch_size, is_active(params.augment)

    def view(voxels: Voxels, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seed = tf.stack([tf.constant(params.seed, tf.int64), number])
        if patch:
            seed = named_seed(seed, f"patch {patch}")
        if patch_size is None:
            image, target = whole_case(voxels, records.shape, records.bits)
        else:
            start = patch_start(voxels, patch_size, records.bits, params.foreground_share, named_seed(seed, "patch"))
            image, target = window(voxels, start, patch_size, records.bits)
        if not is_augmented:
            return image, target
        parameters = sample_parameters(params.augment, image.shape[:3], named_seed(seed, "augment"))
        image, target = augment(tf.cast(image, tf.float32), tf.cast(target, tf.float32), parameters)
        image = tf.clip_by_value(image, -float(MOST_FLOAT16), float(MOST_FLOAT16))  # a contrast may exceed it
        return tf.cast(image, tf.float16), tf.cast(target, tf.uint8)

    return view


def case_batches(
    records: Records, cases: Sequence[str], batch_size: int, *, passes: int | None = 1, part: Part = WHOLE
) -> tf.data.Dataset:
    """Return batches of whole cases, every case once in each pass, in the order of `cases`.

    Args:
        records: The records that the cases are read from.
        cases: The names of the cases.
        batch_size: The global batch, over all replicas of all workers.
        passes: How often all cases are read; None for without end.
        part: The part of each global batch that is read.

    Returns:
        See `training_batches`.
    """
    samples = full_batches(_paths(records, cases), tf.range(len(cases), dtype=tf.int64), batch_size, part).repeat(
        passes
    )

    def view(voxels: Voxels, _number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return whole_case(voxels, records.shape, records.bits)

    return _read(samples, records, batch_size, part, view)


def _paths(records: Records, cases: Sequence[str]) -> tf.Tensor:
    return tf.constant([str(records.path(case)) for case in cases])


def full_batches(paths: tf.Tensor, numbers: tf.Tensor, batch_size: int, part: Part) -> tf.data.Dataset:
    """Return the samples of an epoch of full batches, or of a worker's part of each batch.

    Args:
        paths: The file of each case, string (case,), in the order of the epoch.
        numbers: The number of this sight of each case, int64 (case,).
        batch_size: The global batch.
        part: The part of each global batch.

    Returns:
        A data set of (path, number, weight), one after another, of which `batch_size / part.workers` are the worker's
        part of a global batch.
    """
    cases = paths.shape[0]
    fillers = -cases % batch_size
    in_last = batch_size - fillers
    index = tf.range(cases + fillers)
    weight = tf.where(index >= cases, 0.0, tf.where(index >= cases - in_last, batch_size / in_last, 1.0))

    def of_worker(values: tf.Tensor) -> tf.Tensor:
        by_worker = tf.reshape(values, (-1, part.workers, batch_size // part.workers))
        return tf.reshape(by_worker[:, part.worker], (-1,))

    case = index % cases
    samples = (tf.gather(paths, case), tf.gather(numbers, case), weight)
    return tf.data.Dataset.from_tensor_slices(tuple(of_worker(values) for values in samples))


def _read(samples: tf.data.Dataset, records: Records, batch_size: int, part: Part, view: View) -> tf.data.Dataset:
    """Return the batches of (path, number, weight) samples: each case is read, decoded and viewed."""

    def read(path: tf.Tensor, number: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return *view(decode(_content(path, records), records), number), weight

    batches = _map_cases(samples, read, part).batch(batch_size // (part.workers * part.replicas), drop_remainder=True)
    return _held_ready(batches, part)


def _read_several(samples: tf.data.Dataset, records: Records, params: TrainParams, part: Part) -> tf.data.Dataset:
    """Return the batches of (path, number, weight) samples, each of which gives several patches of the case."""
    each, cases = params.patches_per_case, params.batch_size // part.workers
    views = [_training_view(records, params, patch) for patch in range(each)]

    def read(path: tf.Tensor, number: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        voxels = decode(_content(path, records), records)
        images, targets = zip(*(view(voxels, number) for view in views), strict=True)
        return tf.stack(images), tf.stack(targets), tf.fill((each,), weight)

    def by_step(*values: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Turn (case, patch, ...) into (patch * replica, case, ...): the first patches of all cases come first."""
        shape = (each * part.replicas, cases // part.replicas)
        swapped = (tf.transpose(value, (1, 0, *range(2, value.shape.rank))) for value in values)
        return tuple(tf.reshape(value, (*shape, *value.shape[2:])) for value in swapped)

    batches = _map_cases(samples, read, part).batch(cases, drop_remainder=True).map(as_written(by_step)).unbatch()
    return _held_ready(batches, part)


def _map_cases(samples: tf.data.Dataset, read: Callable[..., tuple[tf.Tensor, ...]], part: Part) -> tf.data.Dataset:
    """Read cases, several at once, in their order."""
    return samples.map(as_written(read), num_parallel_calls=readers(part.replicas), deterministic=True)


def _held_ready(batches: tf.data.Dataset, part: Part) -> tf.data.Dataset:
    # Each training builds and drops its own pipeline, and tf.data's autotuner is slow to go: with it the
    # end of one training in three took 5 s (TensorFlow 2.21, two processes on two cores).
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2 * part.replicas).with_options(options)


def _content(path: tf.Tensor, records: Records) -> tf.Tensor:
    """Return the content of a case's record, string (): from memory where it is held there, else from its file."""
    contents = records.in_memory
    if contents is None:
        return tf.data.TFRecordDataset(path).get_single_element()

    def held(path: bytes) -> bytes:
        return contents[Path(path.decode()).stem].tobytes()

    return tf.ensure_shape(tf.numpy_function(held, [path], tf.string, stateful=False), ())


@contextmanager
def damage_as_error(records: Records) -> Iterator[None]:
    """Raise a MisError in place of TensorFlow's error where a record that is read in this block is damaged."""
    try:
        yield
    except tf.errors.DataLossError as error:
        raise errors.damaged(records.folder, error.message) from None
