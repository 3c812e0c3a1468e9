"""Heartbeats: every worker is asked for one again and again, and who sends none is lost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

REPORT_WAIT_S = 1.0
"""Seconds that the chief may wait for something to report before it answers: so its reports arrive at once."""


class WorkerLostError(Exception):
    """A worker is gone or stuck: started again, the workers may succeed."""


@dataclass(frozen=True)
class Heartbeat:
    """A worker's answer that it is alive, with what is new.

    Attributes:
        steps: How many steps it has reported.
        since_step_s: Seconds since it did so last; None where it reports none.
        reports: The values that it has reported since the last heartbeat that arrived.
    """

    steps: int
    since_step_s: float | None
    reports: Sequence[Any]


class HeartbeatMonitor:
    """Asks the processes of a training for heartbeats, and notices which of them are lost.

    Attributes:
        processes: The Ray actors that still work, by rank.
        names: The workers' names for messages, by rank.
        call: The number of the call that they work on.
        heartbeat_s: Seconds without an answer after which a worker is lost.
        stall_s: Seconds without a step of any worker after which all of them are lost.
        pending: The heartbeat that a worker has been asked for, and when, by `time.monotonic()`.
        latest: The last heartbeat of each worker.
    """

    def __init__(
        self, processes: Sequence[Any], names: Sequence[str], heartbeat_s: float, stall_s: float, call: int = 1
    ) -> None:
        self.call = call
        self.processes = dict(enumerate(processes))
        self.names = names
        self.heartbeat_s = heartbeat_s
        self.stall_s = stall_s
        self.pending: dict[int, tuple[Any, float]] = {}
        self.latest: dict[int, Heartbeat] = {}

    @property
    def next_report(self) -> list[Any]:
        """The heartbeat that the chief has been asked for, which has its next report, if it still works."""
        return [self.pending[0][0]] if 0 in self.pending else []

    def forget(self, rank: int) -> None:
        """Ask a worker no more, because its work has ended."""
        self.processes.pop(rank)
        self.pending.pop(rank, None)
        self.latest.pop(rank, None)

    def ask(self, reports_received: int) -> None:
        """Ask those workers for their next heartbeat whose last one has arrived.

        Args:
            reports_received: How many of the chief's reports have been received before.
        """
        for rank, process in self.processes.items():
            if rank not in self.pending:
                wait_s = REPORT_WAIT_S if rank == 0 else 0.0
                asked = process.heartbeat.remote(self.call, reports_received, wait_s)
                self.pending[rank] = asked, time.monotonic()

    def collect(self) -> Sequence[Any]:
        """Take the heartbeats that have arrived, and return the chief's new reports.

        Raises:
            WorkerLostError: A worker has not answered for `heartbeat_s`, or none has ended a step for `stall_s`.
        """
        reports: Sequence[Any] = ()
        for rank, (reference, asked_at) in list(self.pending.items()):
            if ray.wait([reference], timeout=0)[0]:
                del self.pending[rank]
                try:
                    self.latest[rank] = ray.get(reference)
                except ray.exceptions.RayError:
                    continue  # its work ends with the same error, which says why
                if rank == 0:
                    reports = self.latest[rank].reports
            elif time.monotonic() - asked_at > self.heartbeat_s:
                raise WorkerLostError(f"{self.names[rank]} sent no heartbeat for {self.heartbeat_s:g} s")
        self._check_stall()
        return reports

    def _check_stall(self) -> None:
        since_step_s = [heartbeat.since_step_s for heartbeat in self.latest.values()]
        if since_step_s and all(seconds is not None and seconds > self.stall_s for seconds in since_step_s):
            steps = ", ".join(f"{self.names[rank]} after step {last.steps}" for rank, last in self.latest.items())
            raise WorkerLostError(f"no worker has ended a step for {self.stall_s:g} s ({steps})")
