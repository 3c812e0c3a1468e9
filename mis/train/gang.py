"""Start the workers of one training on a Ray cluster, watch them, and start them again when one is lost."""

import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mis.errors import MisError, WorkerError
from mis.train.allocate import Share, allocate_workers
from mis.train.cluster import alive_nodes, cluster

if TYPE_CHECKING:  # it imports TensorFlow, which the process that watches does without
    from mis.train.multiworker import Worker

POLL_S = 0.5
GRACE_S = 3.0
"""Seconds in which the workers that fail because one is gone do so, after which it is clear who was first."""
PREPARE_S = 300.0
"""Seconds for a worker's process to start and to import TensorFlow, from a shared file system too."""

Work = Callable[["Worker"], Any]


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
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201 - for a terminal
) -> Any:  # noqa: ANN401 - whatever `work` returns
    """Run a function in several processes at once, each with its share of the devices.

    The processes stand on different nodes where there are so many. When one dies, falls silent or
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
        heartbeat_s: A worker that does not answer for so long is lost.
        stall_s: So are all of them where they have not met after so long, or none has called `Worker.progress`
            again for so long.
        ray_address: The Ray cluster; RAY_ADDRESS by default, and a local one where that is unset.
        limit: At most this many devices may be used.
        on_report: Takes what the chief reports.
        say: Takes lines for a person.

    Returns:
        What `work` returned in the chief.

    Raises:
        MisError: There are no such devices, or a worker raised it.
        WorkerError: A worker raised something else, or too many were lost.
    """
    address = ray_address or os.environ.get("RAY_ADDRESS") or None
    sizes, restarts = (workers, *fewer), 0
    with cluster(address, at_least=workers * devices_per_worker) as nodes:
        allocate_workers(nodes, workers, devices_per_worker, limit)  # at the start all must be there
        while True:
            count, share = _fitting(sizes, devices_per_worker, limit, threads)
            if count < workers:
                say(f"devices were lost: going on with {count} of {workers} workers")
            try:
                with _Gang(count, share, say, on_report, together=together) as gang:
                    return gang.run(work, heartbeat_s, stall_s)
            except _NodesChangedError:
                continue  # what there is now is divided anew; nobody was lost by it
            except _LostError as lost:
                if restarts == max_restarts:
                    raise WorkerError(
                        f"{lost}; the workers were started again {restarts} times, which is all that max_restarts "
                        "allows; the same command goes on from the last checkpoint"
                    ) from None
                restarts += 1
                say(f"{lost}; starting again from the last checkpoint ({restarts} of {max_restarts})")


def _fitting(sizes: Sequence[int], devices: int, limit: int | None, threads: int | None) -> tuple[int, Share]:
    """Return the first number of workers for which there are devices now."""
    for number, count in enumerate(sizes, start=1):
        try:
            return count, allocate_workers(alive_nodes(), count, devices, limit, threads)
        except MisError:
            if number == len(sizes):
                raise
    raise ValueError("no number of workers was given")


class _LostError(Exception):
    """A worker is gone or stuck: what may go well when it is tried again."""


class _NodesChangedError(Exception):
    """A node came or went while workers were being started."""


@dataclass(frozen=True)
class _Returned:
    """What became of a worker's work.

    Attributes:
        value: What it returned.
        error: What it raised, as text with the traceback; None after success.
        refused: Whether that was bad input, which needs no traceback.
        lost: Whether that came from another worker's loss.
        died: Whether its process is gone.
    """

    value: Any = None
    error: str | None = None
    refused: bool = False
    lost: bool = False
    died: bool = False


@dataclass(frozen=True)
class _Beat:
    """A sign of life: steps done, seconds since the last of them, and the reports that are new."""

    steps: int
    still_s: float | None
    reports: Sequence[Any]


@ray.remote(concurrency_groups={"beat": 1}, max_restarts=0)
class _Member:
    """A worker's process. It answers while it works."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.reports: list[Any] = []

    def prepare(self) -> str:
        """Import TensorFlow, and return `host:port`, where this worker can be reached."""
        from mis.quiet import import_tensorflow

        import_tensorflow()
        from mis.train.rendezvous import free_port

        host = ray.util.get_node_ip_address()
        return f"{host}:{free_port(host)}"

    def work(
        self, work: Work, addresses: Sequence[str], index: int, share: Share, folder: Path, *, together: bool
    ) -> _Returned:
        """Run the function in a folder, where there is one of that name, and catch what it raises."""
        from mis.train.devices import claim
        from mis.train.multiworker import Worker, first_line, is_lost
        from mis.train.rendezvous import Place

        try:
            if folder.is_dir():
                os.chdir(folder)
            devices = claim(share.devices, share.threads)
            self.worker = Worker(Place(tuple(addresses), index), devices, on_report=self.reports.append)
            if together:
                self.worker.progress(0)
                self.worker.strategy  # noqa: B018 - made here
                self.worker.stepped_at = None  # whether it says more of its progress is for the work to decide
            return _Returned(work(self.worker))
        except MisError as error:
            return _Returned(error=str(error), refused=True)
        except BaseException as error:
            if is_lost(error):
                return _Returned(error=first_line(error), lost=True)
            return _Returned(error=traceback.format_exc())

    @ray.method(concurrency_group="beat")  # type: ignore[untyped-decorator]  # Ray has no types
    def beat(self, seen: int) -> _Beat:
        """Return how far the work is, and the reports after the first `seen`."""
        if self.worker is None or self.worker.stepped_at is None:
            return _Beat(0, None, self.reports[seen:])
        return _Beat(self.worker.steps, time.monotonic() - self.worker.stepped_at, self.reports[seen:])


class _Gang:
    """The processes of one start, until the end of the `with` block."""

    def __init__(
        self,
        count: int,
        share: Share,
        say: Callable[[str], None],
        on_report: Callable[[Any], None],
        *,
        together: bool,
    ) -> None:
        self.count = count
        self.share = share
        self.say = say
        self.on_report = on_report
        self.together = together
        self.members: list[Any] = []
        self.names = [f"worker {index}" for index in range(count)]
        self.seen = 0

    def __enter__(self) -> "_Gang":
        self.nodes = alive_nodes()
        # SPREAD: on different nodes where there are; several on one are better than none.
        self.group = placement_group([dict(self.share.bundle)] * self.count, strategy="SPREAD")
        try:
            self._wait_for_devices()
            for index in range(self.count):
                where = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=index)
                cpus, gpus = self.share.bundle["CPU"], self.share.bundle.get("GPU", 0)
                self.members.append(
                    _Member.options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=where).remote()  # type: ignore[attr-defined]  # added by ray.remote
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for member in self.members:
            ray.kill(member)
        remove_placement_group(self.group)

    def _wait_for_devices(self) -> None:
        """Wait until others have given the devices free; say so if it takes long."""
        told, ready = False, self.group.ready()
        while not ray.wait([ready], timeout=10)[0]:
            if alive_nodes() != self.nodes:
                raise _NodesChangedError
            if not told:
                self.say(f"waiting for the devices of {self.count} workers ({self.share.bundle} each)")
                told = True

    def run(self, work: Work, heartbeat_s: float, stall_s: float) -> Any:  # noqa: ANN401
        """Let all work, and return what the first returned."""
        addresses = self._prepare()
        self.names = [f"worker {index} on {where.rpartition(':')[0]}" for index, where in enumerate(addresses)]
        shared = ray.put(work)
        running = {
            member.work.remote(shared, addresses, index, self.share, Path.cwd(), together=self.together): index
            for index, member in enumerate(self.members)
        }
        try:
            outcome = self._watch(running, _Pulse(self.members, self.names, heartbeat_s, stall_s))
        finally:
            self._take_last_reports()
        return outcome.value

    def _watch(self, running: dict[Any, int], pulse: "_Pulse") -> _Returned:
        """Wait for all, and return what became of the first; raise as soon as one fails."""
        done: dict[int, _Returned] = {}
        while running:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
            self._pass_on(pulse.take(self.seen))
            for reference in ready:
                index = running.pop(reference)
                done[index] = _outcome(reference)
                pulse.forget(index)
                if done[index].error is not None:
                    self._fail(running, done)
        return done[0]

    def _take_last_reports(self) -> None:
        """Pass on what the chief has reported since it was asked last, if it still answers."""
        with suppress(ray.exceptions.RayError):
            self._pass_on(ray.get(self.members[0].beat.remote(self.seen), timeout=GRACE_S).reports)

    def _prepare(self) -> list[str]:
        try:
            return list(ray.get([member.prepare.remote() for member in self.members], timeout=PREPARE_S))
        except ray.exceptions.RayTaskError as error:
            raise WorkerError(f"a worker could not begin:\n{error}") from None
        except ray.exceptions.RayError as error:
            if alive_nodes() != self.nodes:
                raise _NodesChangedError from None
            if isinstance(error, ray.exceptions.GetTimeoutError):
                raise _LostError(f"not all workers were there after {PREPARE_S:.0f} s") from None
            raise _LostError(f"a worker died before it began ({_cause(error)})") from None

    def _pass_on(self, reports: Sequence[Any]) -> None:
        for report in reports:
            self.seen += 1
            self.on_report(report)

    def _fail(self, running: dict[Any, int], done: dict[int, _Returned]) -> None:
        """Find out who was first to fail, and raise for that one alone."""
        late, _ = ray.wait(list(running), num_returns=len(running), timeout=GRACE_S) if running else ([], [])
        for reference in late:
            done[running[reference]] = _outcome(reference)
        failed = {index: outcome for index, outcome in sorted(done.items()) if outcome.error is not None}
        for index, outcome in failed.items():
            if outcome.refused:
                raise MisError(f"{self.names[index]}: {outcome.error}")
        for index, outcome in failed.items():
            if not outcome.lost and not outcome.died:
                raise WorkerError(f"{self.names[index]} failed:\n{outcome.error}")
        for index, outcome in failed.items():
            if outcome.died:
                raise _LostError(f"{self.names[index]} died ({outcome.error})")
        index, outcome = next(iter(failed.items()))
        raise _LostError(f"{self.names[index]} lost the others ({outcome.error})")


class _Pulse:
    """Asks every worker for a sign of life, and notices who gives none."""

    def __init__(self, members: Sequence[Any], names: Sequence[str], heartbeat_s: float, stall_s: float) -> None:
        self.members = dict(enumerate(members))
        self.names = names
        self.heartbeat_s = heartbeat_s
        self.stall_s = stall_s
        self.asked: dict[int, tuple[Any, float]] = {}
        self.beats: dict[int, _Beat] = {}

    def forget(self, index: int) -> None:
        """Ask a worker no more: it is done."""
        self.members.pop(index)
        self.asked.pop(index, None)
        self.beats.pop(index, None)

    def take(self, seen: int) -> Sequence[Any]:
        """Ask those that have answered, and return the chief's reports after the first `seen`."""
        reports: Sequence[Any] = ()
        for index, member in self.members.items():
            if index not in self.asked:
                self.asked[index] = member.beat.remote(seen), time.monotonic()
            reference, since = self.asked[index]
            if ray.wait([reference], timeout=0)[0]:
                del self.asked[index]
                try:
                    self.beats[index] = ray.get(reference)
                except ray.exceptions.RayError:
                    continue  # its work ends with the same error, which says why
                if index == 0:
                    reports = self.beats[index].reports
            elif time.monotonic() - since > self.heartbeat_s:
                raise _LostError(f"{self.names[index]} gave no sign of life for {self.heartbeat_s:g} s")
        still = [beat.still_s for beat in self.beats.values()]
        if still and all(seconds is not None and seconds > self.stall_s for seconds in still):
            steps = ", ".join(f"{self.names[index]} after step {beat.steps}" for index, beat in self.beats.items())
            raise _LostError(f"no worker has ended a step for {self.stall_s:g} s ({steps})")
        return reports


def _outcome(reference: Any) -> _Returned:  # noqa: ANN401 - a Ray reference
    try:
        outcome: _Returned = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # before `work` was called, or with what it returned
        return _Returned(error=str(error))
    except ray.exceptions.RayError as error:  # its process or its node is gone, or out of memory
        return _Returned(error=_cause(error), died=True)
    return outcome


def _cause(error: BaseException) -> str:
    """Return why Ray says that a process died, in one line without its guesses."""
    text = " ".join(str(error).split())
    detail = re.search(r"(?:exit detail: |died because )(.+?\.)(?: |$)", text.partition("Some common causes")[0])
    return (detail[1] if detail else text or "no reason is known")[:200]
