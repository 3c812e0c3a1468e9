"""The process of a worker on a Ray cluster: an actor that answers heartbeats while it works."""

import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from mis.errors import MisError
from mis.train.allocate import Share
from mis.train.heartbeat import Heartbeat

if TYPE_CHECKING:  # it imports TensorFlow, which the process that starts the workers does without
    from mis.train.worker import Worker

Work = Callable[["Worker"], Any]
"""A function that each worker calls."""


@dataclass(frozen=True)
class Outcome:
    """What became of a worker's work.

    Attributes:
        value: What it returned.
        error: What it raised, as text with the traceback; None after success.
        refused: Whether that was bad input, which needs no traceback.
        lost_others: Whether that followed from the loss of another worker.
        died: Whether the worker's process is gone.
    """

    value: Any = None
    error: str | None = None
    refused: bool = False
    lost_others: bool = False
    died: bool = False


@ray.remote(concurrency_groups={"heartbeat": 1, "answers": 1}, max_restarts=0)
class WorkerProcess:
    """A worker's process."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.reports: list[Any] = []
        self.call = self.ended = 0
        self.begun_at: float | None = None
        self.reported = threading.Condition()

    def prepare(self) -> str:
        """Import TensorFlow, and return `host:port`, where the other workers can reach this one."""
        from mis.quiet import import_tensorflow

        import_tensorflow()
        from mis.ports import free_port

        host = ray.util.get_node_ip_address()
        return f"{host}:{free_port(host)}"

    @ray.method(concurrency_group="answers")  # type: ignore[untyped-decorator]  # Ray has no types
    def process_id(self) -> int:
        """Return this process' id."""
        return os.getpid()

    def work(
        self,
        pickled_work: bytes,
        addresses: Sequence[str],
        rank: int,
        share: Share,
        folder: Path,
        *,
        call: int,
        together: bool,
    ) -> Outcome:
        """Call a function, and catch what it raises. A later call has the same worker, with the same strategy.

        Args:
            pickled_work: The function, see `Work`.
            addresses: `host:port` of every worker, by rank.
            rank: The number of this worker.
            share: Its devices.
            folder: The working directory, which is taken where this node has it.
            call: The number of the call, from 1.
            together: Whether the strategy is made before the call, see `mis.train.gang.run_gang`.
        """
        from mis.train.devices import claim
        from mis.train.rendezvous import Rendezvous
        from mis.train.worker import Worker, first_line, is_lost

        with self.reported:
            if self.worker is not None:
                self.worker.stepped_at = None  # since the last call no step was due
            self.reports.clear()
            self.call = call
            # Until the strategy is there, the time of a worker that hangs counts as that of one that waits.
            self.begun_at = time.monotonic() if together else None
        try:
            work: Work = ray.cloudpickle.loads(pickled_work)
            if folder.is_dir():
                os.chdir(folder)
            if self.worker is None:
                devices = claim(share.devices, share.threads, reserved=share.bundle.get("GPU", 0))
                self.worker = Worker(Rendezvous(tuple(addresses), rank), devices, on_report=self._keep)
            if together:
                self.worker.progress(0)
                self.worker.strategy  # noqa: B018 - made here
                self.worker.stepped_at = None  # whether steps are reported from now on is for the work to decide
            return Outcome(work(self.worker))
        except MisError as error:
            return Outcome(error=str(error), refused=True)
        except BaseException as error:
            if is_lost(error):
                return Outcome(error=first_line(error), lost_others=True)
            return Outcome(error=traceback.format_exc())
        finally:
            with self.reported:
                self.ended = call
                self.reported.notify_all()

    def _keep(self, value: Any) -> None:  # noqa: ANN401
        with self.reported:
            self.reports.append(value)
            self.reported.notify_all()

    @ray.method(concurrency_group="answers")  # type: ignore[untyped-decorator]
    def answer(self, value: Any) -> None:  # noqa: ANN401
        """Hand the worker the answer to what it has reported."""
        if self.worker is not None:
            self.worker.answer(value)

    @ray.method(concurrency_group="heartbeat")  # type: ignore[untyped-decorator]
    def heartbeat(self, call: int, reports_received: int, wait_s: float) -> Heartbeat:
        """Return how far the work is, and the reports after the first `reports_received`.

        Args:
            call: The number of the call of `work` that is asked about.
            reports_received: How many reports of it have been received before.
            wait_s: Seconds to wait for a new report.
        """
        with self.reported:
            # A heartbeat that waited beyond the end of the work would keep the next one waiting.
            self.reported.wait_for(
                lambda: self.ended == call or (self.call == call and len(self.reports) > reports_received), wait_s
            )
            if self.call != call:  # an earlier one has ended, and this one has not begun
                return Heartbeat(0, None, ())
            reports = self.reports[reports_received:]
        steps, stepped_at = (self.worker.steps, self.worker.stepped_at) if self.worker else (0, self.begun_at)
        return Heartbeat(steps, None if stepped_at is None else time.monotonic() - stepped_at, reports)


def outcome_of(reference: Any) -> Outcome:  # noqa: ANN401 - a Ray reference
    """Return what became of a call of `WorkerProcess.work` that has ended."""
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # raised outside of `work`, or what it returned cannot be sent
        return Outcome(error=str(error))
    except ray.exceptions.RayError as error:  # its process or its node is gone, or out of memory
        return Outcome(error=cause_of_death(error), died=True)
    return outcome


def cause_of_death(error: BaseException) -> str:
    """Return why Ray says that a process died, in one line without its guesses."""
    text = " ".join(str(error).split())
    detail = re.search(r"(?:exit detail: |died because )(.+?\.)(?: |$)", text.partition("Some common causes")[0])
    return (detail[1] if detail else text or "no reason is known")[:200]
