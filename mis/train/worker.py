"""A worker of a training: what a function that trains knows of its process, and how separate processes join.

This module, `mis.train.rendezvous` (how workers find each other), `mis.train.multiworker` (their strategy) and
`mis.train.gang` (which starts workers) need nothing else of `mis`: see docs/data_parallel.md for how to train a Keras
model of your own with them.
"""

import gc
import os
import re
import signal
import time
import traceback
from collections.abc import Callable
from functools import cached_property, partial
from queue import SimpleQueue
from typing import Any

import tensorflow as tf

from mis.errors import MisError, WorkerError
from mis.train.devices import Devices, claim
from mis.train.meeting import Meeting
from mis.train.multiworker import make_multiworker_strategy
from mis.train.rendezvous import Rendezvous
from mis.train.signals import ended_by

LOST_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises in a worker when another worker is gone."""

NETWORK = re.compile(r"gRPC|NCCL|[Cc]onnection|[Cc]ollective")
"""Words in TensorFlow's unspecific errors where the network, or a port that is in use, is the cause."""

CONNECT_S = 20.0
"""Seconds for TensorFlow to connect the workers once all are ready, which takes a tenth of a second on one host."""

GPU_START_S = 20.0
"""More seconds for each GPU of a worker, which TensorFlow starts first: without a persistent driver that takes long."""


class Worker:
    """The process in which a function trains, one of several or the only one.

    Attributes:
        rendezvous: The addresses of all workers; None for the only one.
        rank: Its number, from 0; the worker of rank 0 is the chief.
        count: How many workers there are.
        name: Its name for messages.
        devices: The devices that it computes on.
        steps: How many steps of training and validation it has reported with `progress`.
        stepped_at: When it did so last, by `time.monotonic()`; None before the first time.
    """

    def __init__(
        self,
        rendezvous: Rendezvous | None,
        devices: Devices,
        make_strategy: Callable[[], tf.distribute.Strategy] | None = None,
        on_report: Callable[[Any], None] | None = None,
    ) -> None:
        self.rendezvous = rendezvous
        self.rank = rendezvous.rank if rendezvous else 0
        self.count = len(rendezvous.addresses) if rendezvous else 1
        self.name = rendezvous.name() if rendezvous else "the only worker"
        self.devices = devices
        self._make_strategy = make_strategy
        self._on_report = on_report
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self.steps = 0
        self.stepped_at: float | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes and reports."""
        return self.rank == 0

    @cached_property
    def strategy(self) -> tf.distribute.Strategy:
        """TensorFlow's strategy of the training; made at its first use, by all workers together."""
        if self._make_strategy is not None:
            return self._make_strategy()
        if self.rendezvous is None:
            raise RuntimeError("a worker without a rendezvous needs make_strategy")
        return make_multiworker_strategy(self.rendezvous, self.devices)

    def report(self, value: object) -> None:
        """Send a value to the process that started the training; values arrive in order, and only the chief's do."""
        if self.is_chief and self._on_report is not None:
            self._on_report(value)

    def confer(self, value: object) -> Any:  # noqa: ANN401 - whatever is answered
        """Report a value, and wait for what the process that started the training answers to it.

        All workers must call it; each gets the answer to the chief's value.
        """
        self.report(value)
        answer = self._answers.get()
        self.progress(0)  # the time of waiting is not the training's
        return answer

    def answer(self, value: object) -> None:
        """Hand over the answer to what was reported; another thread of this process calls it."""
        self._answers.put(value)

    def progress(self, steps: int = 1) -> None:
        """Say that so many steps have ended, or that the first one begins (0): the time until the next one is watched.

        Workers none of which says so for `stall_s` seconds are taken for stuck, see `mis.train.gang.run_gang`.
        """
        self.steps += steps
        self.stepped_at = time.monotonic()

    def of_chief(self, value: int) -> int:
        """Return the chief's value to all workers, which must all call it; a number below 2**53."""
        strategy = self.strategy
        if strategy.num_replicas_in_sync == 1:
            return value
        values = strategy.run(lambda: tf.constant(value if self.is_chief else 0, tf.float64))
        total = float(strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None))
        return int(round(total * self.count / strategy.num_replicas_in_sync))  # noqa: RUF046 - to mypy it is Any

    def agree(self, value: int, what: str) -> None:
        """Compare a value with that of the other workers.

        Args:
            value: A number, below 2**53.
            what: What the number stands for, for the message.

        Raises:
            MisError: The workers do not all have the same value.
        """
        strategy = self.strategy
        if strategy.num_replicas_in_sync == 1:
            return
        values = strategy.run(lambda: tf.constant(value, tf.float64))
        mean = float(strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None))
        if mean != value:
            raise MisError(
                f"{what} must be the same for every worker, got {value:g} with {self.name} and {mean:g} on average",
                do="keep the project in a folder that all nodes share",
            )


def join(
    meeting: Meeting,
    devices: int,
    work: Callable[[Worker], Any],
    on_report: Callable[[Any], None],
    limit: int | None = None,
    *,
    wait_s: float,
) -> Any:  # noqa: ANN401 - whatever `work` returns
    """Run a function in this process as one of several workers that were started separately.

    Args:
        meeting: Where this worker meets the others; it has begun.
        devices: Devices of each worker.
        work: The function.
        on_report: Called in the chief with each value that the chief reports.
        limit: At most this many devices of this host may be used.
        wait_s: Seconds to wait for workers that have not begun.

    Returns:
        What `work` returned.

    Raises:
        MisError: There are no such devices, or `work` raised it, or another worker could not begin with its input;
            the message names the worker.
        WorkerError: `work` raised something else, or another worker is gone.
    """
    rendezvous = meeting.rendezvous
    cpus_per_task = os.environ.get("SLURM_CPUS_PER_TASK")
    threads = max(1, int(cpus_per_task) // devices) if cpus_per_task else None
    claimed = claim(devices, threads, limit, processes=rendezvous.local_workers, process=rendezvous.local_rank)
    connect_s = CONNECT_S + GPU_START_S * sum(name.startswith("GPU") for name in claimed.names)
    connect = partial(make_multiworker_strategy, rendezvous, claimed, connect_s)
    worker = Worker(rendezvous, claimed, connect, on_report)
    meeting.wait(wait_s)
    try:
        with ended_by(signal.SIGINT, clean_up=lambda: meeting.leave_word("it was interrupted")):
            worker.strategy  # noqa: B018 - made here
        meeting.end()
        return work(worker)
    except MisError as error:
        raise MisError(f"{worker.name}: {error}") from None
    except Exception as error:
        if not is_lost(error):
            raise WorkerError(f"{worker.name} failed:\n{traceback.format_exc()}") from None
        cause = first_line(error)
    # Raised here, where TensorFlow's error is gone: its frames hold a pool of threads, which complains when the
    # interpreter finds it at its end.
    gc.collect()
    meeting.raise_failure()
    raise WorkerError(
        f"{worker.name} has lost the others ({cause}); their output says what went wrong, and when that is mended the "
        "same command on every node goes on from the last checkpoint"
    )


def is_lost(error: BaseException) -> bool:
    """Return whether an error of TensorFlow says that another worker, or the connection to it, is gone."""
    if isinstance(error, tf.errors.UnknownError | tf.errors.InternalError):
        return NETWORK.search(str(error)) is not None
    return isinstance(error, LOST_ERRORS)


def first_line(error: BaseException) -> str:
    """Return the cause that an error of TensorFlow names, in one line and without the place in the graph."""
    lines = [line.strip() for line in re.sub(r"\{\{.*?\}\}", "", str(error)).splitlines()]
    place = ("Graph execution error", "Detected at node", "<stack traces", "File ")
    return next((line for line in lines if line and not line.startswith(place)), type(error).__name__)
