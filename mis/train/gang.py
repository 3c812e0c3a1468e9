"""Start the workers of one training on a Ray cluster, and start them again when one is lost."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mis.errors import MisError, WorkerError
from mis.train.allocate import Share, allocate_workers
from mis.train.cluster import NODE_LABEL, alive_nodes, cluster
from mis.train.heartbeat import HeartbeatMonitor, WorkerLostError
from mis.train.nodes import check_nodes_agree
from mis.train.worker_process import Outcome, Work, WorkerProcess, cause_of_death, outcome_of

POLL_S = 0.5
"""Seconds between two looks at the workers."""

GRACE_S = 3.0
"""Seconds in which workers that fail because another is gone do so; then it is clear which one was first."""

ANNOUNCE_S = 10.0
"""Seconds of waiting for devices after which that is said."""

PREPARE_S = 300.0
"""Seconds for a worker's process to start and to import TensorFlow, from a shared file system too."""


def run_gang(
    work: Work,
    *,
    workers: int,
    devices_per_worker: int = 1,
    threads: int | None = None,
    fewer: Sequence[int] = (),
    together: bool = True,
    max_restarts: int = 0,
    heartbeat_s: float = 20.0,
    stall_s: float = 900.0,
    ray_address: str | None = None,
    limit: int | None = None,
    on_report: Callable[[Any], None] = lambda value: None,  # noqa: ARG005
    on_message: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
) -> Any:  # noqa: ANN401 - whatever `work` returns
    """Run a function in several processes at once, each with its share of the devices.

    The processes stand on different nodes where there are so many. When one dies, sends no heartbeat or
    loses another, all are ended and started again: a function that is to go on where it was reads
    its own checkpoint. What `work` itself raises is not tried again.

    Args:
        work: Called in every process with its `Worker`, in the working directory of the caller where
            the node has it. It is pickled.
        workers: How many processes.
        devices_per_worker: GPUs of each, or logical CPU devices where the cluster has no GPU.
        threads: CPU threads of each device; by default the workers share the cores of the cluster.
        fewer: Smaller numbers of workers to go on with where devices were lost, best first.
        together: Whether the workers form one training: `Worker.strategy` is then made before `work` is
            called, because TensorFlow wants that before its first operation.
        max_restarts: How often the workers are started again.
        heartbeat_s: A worker that sends no heartbeat for so many seconds is lost.
        stall_s: All workers are lost where they have not found each other after so many seconds, or none has
            called `Worker.progress` again for so many.
        ray_address: The Ray cluster; RAY_ADDRESS by default, and a local one where that is unset.
        limit: At most this many devices may be used.
        on_report: Called with each value that the chief reports.
        on_message: Called with lines for a person: that workers wait, or are started again.

    Returns:
        What `work` returned in the chief.

    Raises:
        MisError: There are no such devices, a node has other libraries than this process, or a worker raised it.
        WorkerError: A worker raised something else, or too many were lost.
    """
    address = ray_address or os.environ.get("RAY_ADDRESS") or None
    sizes, restarts = (workers, *fewer), 0
    with cluster(address, at_least=workers * devices_per_worker) as nodes:
        allocate_workers(nodes, workers, devices_per_worker, limit)  # at the start all must be there
        check_nodes_agree(address, on_message)
        while True:
            count, share = _largest_that_fits(sizes, devices_per_worker, limit, threads)
            if count < workers:
                on_message(f"devices were lost: going on with {count} of {workers} workers")
            try:
                with Gang(count, share, on_message, together=together) as gang:
                    return gang.run(work, heartbeat_s, stall_s, on_report)
            except _NodesChangedError:
                continue  # the devices that are there now are divided again; no worker was lost
            except WorkerLostError as lost:
                if restarts == max_restarts:
                    raise WorkerError(
                        f"{lost}; the workers were started again {restarts} times, which is all that max_restarts "
                        "allows; the same command goes on from the last checkpoint"
                    ) from None
                restarts += 1
                on_message(f"{lost}; starting again from the last checkpoint ({restarts} of {max_restarts})")


def _largest_that_fits(sizes: Sequence[int], devices: int, limit: int | None, threads: int | None) -> tuple[int, Share]:
    """Return the first number of workers for which there are devices now, and what each worker has."""
    for number, count in enumerate(sizes, start=1):
        try:
            return count, allocate_workers(alive_nodes(), count, devices, limit, threads)
        except MisError:
            if number == len(sizes):
                raise
    raise ValueError("no number of workers was given")


class _NodesChangedError(WorkerLostError):
    """A node came or went while workers were being started."""

    def __init__(self) -> None:
        super().__init__("a node came or went while workers were being started")


class Gang:
    """The workers' processes from one start to the next, until the end of the `with` block.

    They may run one function after another: a later one finds the same workers, with the same strategy.
    """

    def __init__(
        self,
        count: int,
        share: Share,
        on_message: Callable[[str], None],
        *,
        together: bool,
        group: PlacementGroup | None = None,
        node_names: Sequence[str] = (),
    ) -> None:
        """Prepare to start workers.

        Args:
            count: How many.
            share: What each has.
            on_message: Takes a line for a person.
            together: Whether they form one training, see `run_gang`.
            group: Where their devices are reserved already, in a bundle for each worker; by default they reserve them.
            node_names: Ray's name of each worker's node; by default they are on whatever nodes have the devices free.
        """
        self.count = count
        self.share = share
        self.on_message = on_message
        self.together = together
        self.reserved = group
        self.node_names = node_names
        self.processes: list[Any] = []
        self.names = [f"worker {rank}" for rank in range(count)]
        self.addresses: list[str] = []
        self.calls = 0
        self.reports_received = 0
        self.group: PlacementGroup | None = None
        self.ended = False

    def __enter__(self) -> "Gang":
        self.nodes = alive_nodes()
        if not set(self.node_names) <= {node.name for node in self.nodes}:
            raise WorkerError("a node that these workers were to have is gone")
        # SPREAD: on different nodes where there are; several on one are better than none.
        bundles = [dict(self.share.bundle)] * self.count
        where = [{NODE_LABEL: name} for name in self.node_names] or None
        self.group = self.reserved or placement_group(bundles, strategy="SPREAD", bundle_label_selector=where)
        try:
            self._wait_for_devices()
            for rank in range(self.count):
                bundle = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank)
                cpus, gpus = self.share.bundle["CPU"], self.share.bundle.get("GPU", 0)
                self.processes.append(
                    WorkerProcess.options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=bundle).remote()  # type: ignore[attr-defined]  # added by ray.remote
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.ended = True
        for process in self.processes:
            ray.kill(process)
        if self.reserved is None and self.group is not None:
            remove_placement_group(self.group)

    def _wait_for_devices(self) -> None:
        """Wait until others have given the devices free; say so if it takes long."""
        group = self.group
        if group is None:
            raise RuntimeError("the devices are reserved first")
        announced, ready, begun = False, group.ready(), time.monotonic()
        while not ray.wait([ready], timeout=1)[0]:
            if self.ended:  # from another thread
                raise WorkerError("the workers were ended before they began")
            if alive_nodes() != self.nodes:
                raise _NodesChangedError
            if not announced and time.monotonic() - begun > ANNOUNCE_S:
                self.on_message(f"waiting for the devices of {self.count} workers ({self.share.bundle} each)")
                announced = True

    def run(self, work: Work, heartbeat_s: float, stall_s: float, on_report: Callable[[Any], None]) -> Any:  # noqa: ANN401
        """Call a function in all processes, and return what it returned in the chief; see `run_gang`."""
        self.prepare()
        self.calls += 1
        self.reports_received = 0
        self.on_report = on_report
        # As bytes, which the worker reads itself: while Ray reads an argument, a process answers no heartbeat, and to
        # import what the function needs may take long.
        shared_work = ray.put(ray.cloudpickle.dumps(work))
        how = {"call": self.calls, "together": self.together}
        running = {
            process.work.remote(shared_work, self.addresses, rank, self.share, Path.cwd(), **how): rank
            for rank, process in enumerate(self.processes)
        }
        monitor = HeartbeatMonitor(self.processes, self.names, heartbeat_s, stall_s, self.calls)
        try:
            outcome = self._watch(running, monitor)
        finally:
            self._take_last_reports()
        return outcome.value

    def prepare(self) -> None:
        """Wait until all processes have imported TensorFlow."""
        if not self.addresses:
            self.addresses = self._prepare()
            hosts = [address.rpartition(":")[0] for address in self.addresses]
            self.names = [f"worker {rank} on {host}" for rank, host in enumerate(hosts)]

    def process_ids(self) -> list[int]:
        """Return the id of each process on its node, by rank."""
        return list(ray.get([process.process_id.remote() for process in self.processes]))

    def answer(self, value: object) -> None:
        """Answer what the chief has reported, to all workers: see `Worker.confer`."""
        for process in self.processes:
            process.answer.remote(value)

    def _watch(self, running: dict[Any, int], monitor: HeartbeatMonitor) -> Outcome:
        """Wait for all workers, and return what became of the chief; raise as soon as one fails."""
        done: dict[int, Outcome] = {}
        while running:
            if self.ended:  # from another thread
                raise WorkerError("the workers were ended")
            monitor.ask(self.reports_received)
            ready, _ = ray.wait([*running, *monitor.next_report], num_returns=1, timeout=POLL_S)
            self._pass_on(monitor.collect())
            for reference in (one for one in ready if one in running):
                rank = running.pop(reference)
                done[rank] = outcome_of(reference)
                monitor.forget(rank)
                if done[rank].error is not None:
                    self._fail(running, done)
        return done[0]

    def _take_last_reports(self) -> None:
        """Pass on what the chief has reported since its last heartbeat, if it still answers."""
        with suppress(ray.exceptions.RayError):
            asked = self.processes[0].heartbeat.remote(self.calls, self.reports_received, 0.0)
            last = ray.get(asked, timeout=GRACE_S)
            self._pass_on(last.reports)

    def _prepare(self) -> list[str]:
        """Return the addresses of all workers, by rank, once they have imported TensorFlow."""
        try:
            return list(ray.get([process.prepare.remote() for process in self.processes], timeout=PREPARE_S))
        except ray.exceptions.RayTaskError as error:
            raise WorkerError(f"a worker could not begin:\n{error}") from None
        except ray.exceptions.RayError as error:
            if alive_nodes() != self.nodes:
                raise _NodesChangedError from None
            if isinstance(error, ray.exceptions.GetTimeoutError):
                raise WorkerLostError(f"not all workers were there after {PREPARE_S:.0f} s") from None
            raise WorkerLostError(f"a worker died before it began ({cause_of_death(error)})") from None

    def _pass_on(self, reports: Sequence[Any]) -> None:
        for report in reports:
            self.reports_received += 1
            self.on_report(report)

    def _fail(self, running: dict[Any, int], done: dict[int, Outcome]) -> None:
        """Find out which worker was first to fail, and raise for that one alone."""
        late, _ = ray.wait(list(running), num_returns=len(running), timeout=GRACE_S) if running else ([], [])
        for reference in late:
            done[running[reference]] = outcome_of(reference)
        failed = {rank: outcome for rank, outcome in sorted(done.items()) if outcome.error is not None}
        for rank, outcome in failed.items():
            if outcome.refused:
                raise MisError(f"{self.names[rank]}: {outcome.error}")
        for rank, outcome in failed.items():
            if not outcome.lost_others and not outcome.died:
                raise WorkerError(f"{self.names[rank]} failed:\n{outcome.error}")
        for rank, outcome in failed.items():
            if outcome.died:
                raise WorkerLostError(f"{self.names[rank]} died ({outcome.error})")
        rank, outcome = next(iter(failed.items()))
        raise WorkerLostError(f"{self.names[rank]} lost the others ({outcome.error})")
