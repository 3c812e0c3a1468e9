"""Where a training runs: in this process, in this process as one of several, or in workers that are started for it."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mis.params.distribute import DistributeParams
from mis.settings import Settings
from mis.train import messages
from mis.train.devices import Devices, claim
from mis.train.meeting import Meeting
from mis.train.rendezvous import find_rendezvous, say
from mis.train.strategy import make_strategy
from mis.train.worker import Worker, join

Work = Callable[[Worker], Any]
"""A function that each worker calls."""

OnReport = Callable[[Any], None]
"""Called with each value that the chief reports, in order."""

OnMessage = Callable[[str], None]
"""Called with each line that a person should see."""


def ignore(value: object) -> None:
    """Do nothing with a report or a message."""


class Launcher(Protocol):
    """A way to run a function on the devices of a training."""

    @property
    def leads(self) -> bool:
        """Whether this process shows progress and writes results; of several exactly one does."""

    def attend(self) -> AbstractContextManager[object]:
        """Return a block that has all that this process does for the training.

        Where it raises an error before the workers are connected, those that were started apart learn why.
        """

    def run(self, work: Work, on_report: OnReport = ignore, on_message: OnMessage = ignore) -> Any:  # noqa: ANN401 - of `work`
        """Call the function in every worker, and return what it returned in the chief."""


def find_launcher(params: DistributeParams, settings: Settings, batch_size: int) -> Launcher:
    """Return the launcher that the parameters and the environment ask for.

    Args:
        params: How the training is spread over devices.
        settings: The machine's settings.
        batch_size: The global batch, which smaller numbers of workers must divide as well.

    Raises:
        MisError: There are not as many devices in this process, or the environment has workers, but another
            number of them.
    """
    rendezvous = find_rendezvous(os.environ, settings.checkpoints / "rendezvous", params.workers)
    if params.chosen != "multiworker":
        devices = claim(params.devices_per_worker, limit=settings.devices)
        return _InThisProcess(devices, "mirrored" if params.chosen == "mirrored" else "none")
    if rendezvous is not None:
        return _AsOneOfSeveral(params, settings, Meeting(rendezvous, say))
    fewer = [
        count
        for count in range(params.workers - 1, params.min_workers - 1, -1)
        if batch_size % (count * params.devices_per_worker) == 0
    ]
    return _OnRay(params, settings, fewer)


@dataclass(frozen=True)
class _InThisProcess:
    """Trains in this process, the only one."""

    devices: Devices
    kind: Literal["none", "mirrored"]
    leads: bool = True

    def attend(self) -> AbstractContextManager[object]:
        return nullcontext()

    def run(self, work: Work, on_report: OnReport = ignore, on_message: OnMessage = ignore) -> Any:  # noqa: ANN401, ARG002
        return work(Worker(None, self.devices, lambda: make_strategy(self.devices, self.kind), on_report))


@dataclass(frozen=True)
class _AsOneOfSeveral:
    """Trains in this process, which TF_CONFIG or SLURM has started as one of several workers."""

    params: DistributeParams
    settings: Settings
    meeting: Meeting

    @property
    def leads(self) -> bool:
        return self.meeting.rendezvous.rank == 0

    def attend(self) -> AbstractContextManager[object]:
        return self.meeting

    def run(self, work: Work, on_report: OnReport = ignore, on_message: OnMessage = ignore) -> Any:  # noqa: ANN401
        params, limit = self.params, self.settings.devices
        if self.leads:
            on_message(messages.WORKERS_LISTEN)
        with nullcontext() if self.meeting.has_begun else self.meeting:
            return join(self.meeting, params.devices_per_worker, work, on_report, limit, wait_s=params.stall_s)


@dataclass(frozen=True)
class _OnRay:
    """Starts the workers on a Ray cluster."""

    params: DistributeParams
    settings: Settings
    fewer: Sequence[int]
    leads: bool = True

    def attend(self) -> AbstractContextManager[object]:
        return nullcontext()

    def run(self, work: Work, on_report: OnReport = ignore, on_message: OnMessage = ignore) -> Any:  # noqa: ANN401
        from mis.train.gang import run_gang

        params = self.params
        on_message(messages.WORKERS_LISTEN)
        return run_gang(
            work,
            workers=params.workers,
            devices_per_worker=params.devices_per_worker,
            fewer=self.fewer,
            max_restarts=params.max_restarts,
            heartbeat_s=params.heartbeat_s,
            stall_s=params.stall_s,
            ray_address=self.settings.ray_address,
            limit=self.settings.devices,
            on_report=on_report,
            on_message=on_message,
        )
