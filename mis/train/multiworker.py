"""Keras 3 on several workers of TensorFlow.

Keras' `fit` fails under `tf.distribute.MultiWorkerMirroredStrategy` (keras issue 20585): it reduces
tuples, and scalars along an axis, which this strategy alone refuses. `KerasMultiWorkerStrategy`
answers both; nothing else is changed, so that models stay plain Keras models.

This module and `mis.train.gang`, which starts the workers, need nothing else of `mis`: see
docs/data_parallel.md for how to train a Keras model of your own with them.
"""

import gc
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

from mis.errors import MisError, WorkerError
from mis.train.devices import Devices, claim

MEETING_S = 300.0
"""Seconds that workers which were started apart wait for each other."""

LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises in a worker when another one is gone."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among the workers of a training.

    Attributes:
        addresses: `host:port` of every worker; the first is the chief.
        index: Which of them this process is, from 0.
        card: The file with this worker's address, where they met in a folder; it is removed at the end.
    """

    addresses: tuple[str, ...]
    index: int
    card: Path | None = None

    @property
    def host(self) -> str:
        """The host of this worker."""
        return _host(self.addresses[self.index])

    @property
    def local_rank(self) -> int:
        """How many of the workers before this one are on the same host."""
        return [_host(address) for address in self.addresses[: self.index]].count(self.host)

    @property
    def local_workers(self) -> int:
        """How many workers are on this one's host."""
        return [_host(address) for address in self.addresses].count(self.host)

    def tf_config(self) -> str:
        """Return the value of TF_CONFIG.

        >>> Place(("a:1", "b:2"), 1).tf_config()
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}'
        """
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.addresses)}, "task": task})


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

    def progress(self) -> None:
        """Say that a step has ended: who waits for too long for the next one takes the workers for stuck."""
        self.steps += 1
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
        on_gpu = devices.names[0].startswith("GPU")
        kind = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(implementation=kind.NCCL if on_gpu else kind.RING)
        if on_gpu or len(devices.names) == 1:
            super().__init__(communication_options=options)
        else:
            # TensorFlow takes one CPU device a worker, whatever there is; only its private class can be told otherwise.
            tf.distribute.Strategy.__init__(self, _SeveralCpus(self, devices, options))

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


# ---- Workers that were started by something else ----


def find_place(env: Mapping[str, str], meeting: Path, workers: int) -> Place | None:
    """Return this process' place where TF_CONFIG or SLURM's variables give it one.

    TF_CONFIG has the addresses. Under `srun` with several tasks each one finds a free port and
    writes its address to a folder that all share.

    Args:
        env: The environment.
        meeting: The folder where addresses are exchanged; it is made.
        workers: How many there must be.

    Returns:
        The place, or None where this process was not started as one of several.

    Raises:
        MisError: There are more or fewer workers than `workers`, TF_CONFIG cannot be read, or some
            did not come.
    """
    if env.get("TF_CONFIG"):
        place = _read_tf_config(env["TF_CONFIG"])
        _check_count(len(place.addresses), workers, "TF_CONFIG names")
        return place
    if env.get("RAY_ADDRESS") or int(env.get("SLURM_STEP_NUM_TASKS") or 1) == 1:
        return None
    tasks = int(env["SLURM_STEP_NUM_TASKS"])
    _check_count(tasks, workers, "srun started")
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    folder = meeting / "-".join(env.get(name, "0") for name in names)
    return meet(folder, int(env["SLURM_PROCID"]), tasks, own_host(env.get("SLURM_LAUNCH_NODE_IPADDR")))


def _check_count(there: int, workers: int, who: str) -> None:
    if there != workers:
        raise MisError(
            f"distribute.workers must be the number of workers that {who} ({there})",
            got=workers,
            do=f"--set distribute.workers={there}",
        )


def _read_tf_config(text: str) -> Place:
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        roles = [role for role in ("chief", "worker") if role in cluster]
        addresses = [(role, address) for role in roles for address in cluster[role]]
        first = len(cluster.get("chief", ())) if task["type"] == "worker" else 0
        index = first + int(task["index"])
        addresses[index]
    except (ValueError, KeyError, IndexError, TypeError):
        raise MisError(
            'TF_CONFIG must be JSON with {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
            '"index": 0}}',
            got=repr(text),
        ) from None
    return Place(tuple(address for _, address in addresses), index)


def meet(folder: Path, rank: int, count: int, host: str, timeout_s: float = MEETING_S) -> Place:
    """Exchange addresses through a folder that all workers share.

    Args:
        folder: One for each start; it is made.
        rank: Which worker this is.
        count: How many there are.
        host: The address under which the others reach this one.
        timeout_s: How long to wait for them.

    Raises:
        MisError: Some did not come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card, unfinished = folder / str(rank), folder / f".{rank}"
    unfinished.write_text(f"{host}:{free_port(host)}", encoding="utf-8")
    unfinished.rename(card)
    deadline = time.monotonic() + timeout_s
    while missing := [other for other in range(count) if not (folder / str(other)).exists()]:
        if time.monotonic() > deadline:
            raise MisError(
                f"all {count} workers must come to {folder} within {timeout_s:.0f} s, "
                f"got none of {', '.join(map(str, missing))}",
                do="look at what they say; the folder must be the same on every node",
            )
        time.sleep(0.1)
    return Place(tuple((folder / str(other)).read_text(encoding="utf-8") for other in range(count)), rank, card)


def own_host(towards: str | None = None) -> str:
    """Return the address of this host as another one sees it; the loopback address where there is no other."""
    if towards is None:
        return "127.0.0.1"
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((towards, 1))  # nothing is sent: it only chooses the route
        return str(probe.getsockname()[0])


def free_port(host: str) -> int:
    """Return a port that is free on this host now."""
    with closing(socket.socket()) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def join(place: Place, devices: int, work: Callable[[Worker], Any], on_report: Callable[[Any], None]) -> Any:  # noqa: ANN401
    """Run a function as one of several workers that were started apart.

    Args:
        place: Which of them.
        devices: Devices of each worker.
        work: What to run.
        on_report: Takes what the chief reports, in the chief.

    Returns:
        What `work` returned.

    Raises:
        WorkerError: Another worker is gone.
    """
    per_task = os.environ.get("SLURM_CPUS_PER_TASK")
    threads = max(1, int(per_task) // devices) if per_task else None
    own = claim(devices, threads, processes=place.local_workers, process=place.local_rank)
    worker = Worker(place, own, on_report=on_report)
    try:
        return work(worker)
    except LOST as error:
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
        f"{worker.name} has lost the others; the same command on every node goes on from the last checkpoint ({lost})"
    )


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line and without TensorFlow's names of graph nodes."""
    text = re.sub(r"\{\{.*?\}\}", "", str(error)).strip()
    return text.splitlines()[0].strip() if text else type(error).__name__


def _host(address: str) -> str:
    return address.rpartition(":")[0]
