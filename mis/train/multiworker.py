"""Keras 3 on several workers of TensorFlow.

Keras' `fit` fails under `tf.distribute.MultiWorkerMirroredStrategy` (keras issue 20585): it reduces
tuples, and scalars along an axis, which this strategy alone refuses. `KerasMultiWorkerStrategy`
answers both; nothing else is changed, so that models stay plain Keras models.

This module, `mis.train.rendezvous` (how workers find each other) and `mis.train.gang` (which starts them)
need nothing else of `mis`: see docs/data_parallel.md for how to train a Keras model of your own with them.
"""

import gc
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

from mis.errors import MisError, WorkerError
from mis.train.devices import Devices, claim
from mis.train.rendezvous import Place

LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises in a worker when another one is gone."""

ALONE_S = 15.0
"""Seconds after which a worker says that it waits for others."""

NETWORK = re.compile(r"gRPC|NCCL|[Cc]onnection|[Cc]ollective")
"""What errors of TensorFlow without a kind of their own name when the network is to blame, or a port that is taken."""


class Worker:
    """What a function that trains is told about the process that it runs in.

    Attributes:
        index: From 0.
        count: How many workers there are.
        name: For messages.
        devices: What it computes on.
    """

    def __init__(
        self,
        place: Place | None,
        devices: Devices,
        make_strategy: Callable[[], tf.distribute.Strategy] | None = None,
        on_report: Callable[[Any], None] | None = None,
    ) -> None:
        self.place = place
        self.index = place.index if place else 0
        self.count = len(place.addresses) if place else 1
        self.name = f"worker {self.index} on {place.host}" if place else "the only worker"
        self.devices = devices
        self._make_strategy = make_strategy
        self._on_report = on_report
        self.steps = 0
        self.stepped_at: float | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes and reports."""
        return self.index == 0

    @cached_property
    def strategy(self) -> tf.distribute.Strategy:
        """How the training is spread; made at the first use, by all workers together."""
        if self._make_strategy is not None:
            return self._make_strategy()
        if self.place is None:
            raise RuntimeError("a worker without a place needs make_strategy")
        os.environ["TF_CONFIG"] = self.place.tf_config()
        return KerasMultiWorkerStrategy(self.devices)

    def report(self, value: object) -> None:
        """Hand a value to who started the training; it arrives in order. Only the chief's are passed on."""
        if self.is_chief and self._on_report is not None:
            self._on_report(value)

    def progress(self, steps: int = 1) -> None:
        """Say that a step has ended, or begins (0): who waits too long for the next one takes the workers for stuck."""
        self.steps += steps
        self.stepped_at = time.monotonic()

    def agree(self, value: int, what: str) -> None:
        """Compare a value with the other workers': they must all have the same.

        Raises:
            MisError: They have not.
        """
        strategy = self.strategy
        if strategy.num_replicas_in_sync == 1:
            return
        own = strategy.run(lambda: tf.constant(value, tf.float64))
        mean = float(strategy.reduce(tf.distribute.ReduceOp.MEAN, own, axis=None))
        if mean != value:
            raise MisError(
                f"{what} must be the same for every worker, got {value:g} with {self.name} and {mean:g} on average",
                do="keep the project in a folder that all nodes share",
            )


class KerasMultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):  # type: ignore[misc]  # TensorFlow has no types
    """`tf.distribute.MultiWorkerMirroredStrategy` under which Keras 3 trains.

    A process can have one in its life, made before TensorFlow's first operation.
    """

    def __init__(self, devices: Devices) -> None:
        """Meet the other workers that TF_CONFIG names; collective operations use NCCL on GPUs, else rings.

        Args:
            devices: This worker's, as `claim` gave them.
        """
        in_main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if in_main:  # Python does not come to its own handler while TensorFlow waits for the others
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        on_gpu = devices.names[0].startswith("GPU")
        kind = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(implementation=kind.NCCL if on_gpu else kind.RING)
        if on_gpu or len(devices.names) == 1:
            super().__init__(communication_options=options)
        else:
            # TensorFlow takes one CPU device a worker, whatever there is; only its private class can be told otherwise.
            tf.distribute.Strategy.__init__(self, _SeveralCpus(self, devices, options))
        if in_main:
            # TensorFlow now takes SIGTERM for a notice that nobody reads: `kill` and a cluster's time limit would not
            # end the process.
            for number, handler in before.items():
                signal.signal(number, handler)

    def reduce(self, reduce_op: object, value: Any, axis: int | None = None) -> Any:  # noqa: ANN401 - any tensors
        """Reduce as Keras asks for it, see `tf.distribute.Strategy.reduce`.

        A structure is the probe of Keras for shapes: of each leaf the first local value comes back.
        Scalars have no axis to reduce over: they are reduced over replicas alone.
        """
        if isinstance(value, tuple | list | dict):
            return tf.nest.map_structure(lambda leaf: self.experimental_local_results(leaf)[0], value)
        if axis is not None and all(local.shape.rank == 0 for local in self.experimental_local_results(value)):
            axis = None
        return super().reduce(reduce_op, value, axis=axis)


class _SeveralCpus(CollectiveAllReduceExtended):  # type: ignore[misc]  # TensorFlow has no types
    """The part of the strategy that counts a worker's devices, for several logical CPU devices."""

    def __init__(self, strategy: tf.distribute.Strategy, devices: Devices, options: object) -> None:
        self.names = devices.names
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        super().__init__(strategy, cluster_resolver=resolver, communication_options=options)

    def _initialize_local_devices(self, cluster_resolver: object, worker_device: str) -> tuple[tuple[str, ...], str]:  # noqa: ARG002
        return tuple(f"{worker_device}/device:{name}" for name in self.names), "CPU"


def join(
    place: Place,
    devices: int,
    work: Callable[[Worker], Any],
    on_report: Callable[[Any], None],
    limit: int | None = None,
) -> Any:  # noqa: ANN401 - whatever `work` returns
    """Run a function as one of several workers that were started apart.

    Args:
        place: Which of them.
        devices: Devices of each worker.
        work: What to run.
        on_report: Takes what the chief reports, in the chief.
        limit: At most this many devices of this host may be used.

    Returns:
        What `work` returned.

    Raises:
        MisError: There are no such devices, or `work` raised it; with the worker's name.
        WorkerError: `work` raised something else, or another worker is gone.
    """
    per_task = os.environ.get("SLURM_CPUS_PER_TASK")
    threads = max(1, int(per_task) // devices) if per_task else None
    own = claim(devices, threads, limit, processes=place.local_workers, process=place.local_rank)
    worker = Worker(place, own, on_report=on_report)
    others = ", ".join(address for index, address in enumerate(place.addresses) if index != place.index)
    alone = threading.Timer(ALONE_S, _say, [f"{worker.name} is waiting for {others}"])
    alone.daemon = True
    alone.start()
    try:
        worker.strategy  # noqa: B018 - made here
        alone.cancel()
        return work(worker)
    except MisError as error:
        raise MisError(f"{worker.name}: {error}") from None
    except Exception as error:
        if not is_lost(error):
            raise WorkerError(f"{worker.name} failed:\n{traceback.format_exc()}") from None
        lost = first_line(error)
    finally:
        if place.card is not None:
            place.card.unlink(missing_ok=True)
            with suppress(OSError):  # others are not done yet
                place.card.parent.rmdir()
    # Raised here, where TensorFlow's error is gone: its frames hold a pool of threads, which complains when it is
    # found at the very end.
    gc.collect()
    raise WorkerError(
        f"{worker.name} has lost the others ({lost}); what went wrong is with theirs, and when it is mended the same "
        "command on every node goes on from the last checkpoint"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - for who wonders why nothing happens


def is_lost(error: BaseException) -> bool:
    """Return whether an error of TensorFlow says that another worker, or the way to it, is gone."""
    if isinstance(error, tf.errors.UnknownError | tf.errors.InternalError):
        return NETWORK.search(str(error)) is not None
    return isinstance(error, LOST)


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line and without where in the graph TensorFlow found it."""
    lines = [line.strip() for line in re.sub(r"\{\{.*?\}\}", "", str(error)).splitlines()]
    where = ("Graph execution error", "Detected at node", "<stack traces", "File ")
    return next((line for line in lines if line and not line.startswith(where)), type(error).__name__)
