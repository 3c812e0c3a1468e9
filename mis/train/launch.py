"""Where a training runs: in this process, in this process as one of several, or in workers that are started for it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mis.params.distribute import DistributeParams
from mis.settings import Settings
from mis.train.devices import Devices, claim
from mis.train.multiworker import Worker, join
from mis.train.rendezvous import Place, find_place
from mis.train.strategy import make_strategy

Work = Callable[[Worker], Any]
Watch = Callable[[Any], None]
Say = Callable[[str], None]


def nothing(value: object) -> None:
    """Take something and do nothing with it."""


class Launcher(Protocol):
    """A way to run a function on the devices of a training."""

    @property
    def leads(self) -> bool:
        """Whether this process shows progress and writes results; of several exactly one does."""

    def run(self, work: Work, on_report: Watch = nothing, say: Say = nothing) -> Any:  # noqa: ANN401 - of `work`
        """Run it and return what it returned; the reports of its chief come one by one, `say` takes lines to show."""


def find_launcher(params: DistributeParams, settings: Settings, batch_size: int) -> Launcher:
    """Return the way that the parameters and the environment ask for.

    Args:
        params: How the training is spread.
        settings: The machine.
        batch_size: The global batch, which smaller numbers of workers must divide as well.

    Raises:
        MisError: There are not as many devices in this process, or the environment has workers, but another
            number of them.
    """
    place = find_place(os.environ, settings.checkpoints / "meeting", params.workers)
    if params.chosen != "multiworker":
        devices = claim(params.devices_per_worker, limit=settings.devices)
        return _Here(devices, "mirrored" if params.chosen == "mirrored" else "none")
    if place is not None:
        return _Joined(params, settings, place)
    fewer = [
        count
        for count in range(params.workers - 1, params.min_workers - 1, -1)
        if batch_size % (count * params.devices_per_worker) == 0
    ]
    return _Started(params, settings, fewer)


@dataclass(frozen=True)
class _Here:
    devices: Devices
    kind: Literal["none", "mirrored"]
    leads: bool = True

    def run(self, work: Work, on_report: Watch = nothing, say: Say = nothing) -> Any:  # noqa: ANN401, ARG002
        return work(Worker(None, self.devices, lambda: make_strategy(self.devices, self.kind), on_report))


@dataclass(frozen=True)
class _Joined:
    params: DistributeParams
    settings: Settings
    place: Place

    @property
    def leads(self) -> bool:
        return self.place.index == 0

    def run(self, work: Work, on_report: Watch = nothing, say: Say = nothing) -> Any:  # noqa: ANN401, ARG002
        return join(self.place, self.params.devices_per_worker, work, on_report, self.settings.devices)


@dataclass(frozen=True)
class _Started:
    params: DistributeParams
    settings: Settings
    fewer: Sequence[int]
    leads: bool = True

    def run(self, work: Work, on_report: Watch = nothing, say: Say = nothing) -> Any:  # noqa: ANN401
        from mis.train.gang import run_gang

        params = self.params
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
            say=say,
        )
