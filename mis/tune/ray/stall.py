"""A trial whose process does no step any more is ended, and goes on from its checkpoint.

The process notes its steps in a file of the trial's folder, and the driver looks whether there are more of them. A
process that hangs can do nothing about it, and neither can Ray, for which it lives.
"""

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.tune.experiment import Trial as RayTrial
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mis.files import write_json
from mis.tune.study.layout import TrialFolder

NOTE_S = 1.0
"""Seconds between two notes of a process, at least: a step may take milliseconds."""

LOOKS = 20
"""How often the driver looks within the time after which a trial is ended."""

TRACE_S = 2.0
"""Seconds that a process has to write down where it hangs."""

TRACE_SIGNAL = signal.SIGUSR2
"""Upon which the process writes down where it is; that needs no lock that a thread may hold."""


class Steps:
    """Notes the steps of a trial's process, for the driver to see."""

    def __init__(self, folder: TrialFolder) -> None:
        self._path = folder.steps
        self._count = 0
        self._noted_at = float("-inf")

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Note that this process lives, during the block: the steps are done, and watched, elsewhere."""
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(NOTE_S):
                self.progress()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def progress(self, steps: int = 1) -> None:
        """Note that so many steps have ended."""
        self._count += steps
        if time.monotonic() - self._noted_at >= NOTE_S:
            self._noted_at = time.monotonic()
            # Not synced: after a loss of power nobody asks. A disk that is full is for the checkpoint to say.
            with suppress(OSError):
                unfinished = self._path.with_name(f".{self._path.name}.{os.getpid()}")
                unfinished.write_text(f"{os.getpid()} {self._count}", encoding="utf-8")
                unfinished.replace(self._path)


@contextmanager
def noting_steps(folder: TrialFolder) -> Iterator[Steps]:
    """Note where this process is, and let the block note its steps."""
    folder.path.mkdir(parents=True, exist_ok=True)
    node = ray.get_runtime_context().get_node_id()
    write_json(folder.started, {"node": node, "host": os.uname().nodename, "pid": os.getpid()})
    with folder.trace.open("ab") as trace:
        faulthandler.register(TRACE_SIGNAL, file=trace, all_threads=True)
        try:
            steps = Steps(folder)
            steps.progress(0)
            yield steps
        finally:
            faulthandler.unregister(TRACE_SIGNAL)


@dataclass
class _Seen:
    steps: str
    since: float


@dataclass
class StallWatch:
    """Ends the processes of trials that have done no step for too long.

    Attributes:
        stall_s: Seconds without a step after which a trial is ended; None never ends one.
        processes: The processes of the trials.
        steps: Returns what the process of a trial has noted last, by the trial's number.
        clock: Seconds that never go back.
    """

    stall_s: float | None
    processes: "Processes"
    steps: Callable[[int], str]
    clock: Callable[[], float] = time.monotonic
    ended: dict[int, str] = field(default_factory=dict)
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _looked_at: float = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return self.stall_s is not None and self.clock() - self._looked_at >= self.stall_s / LOOKS

    def started(self, number: int) -> None:
        """Note that a trial has been given a process: its time begins."""
        self._seen.pop(number, None)

    def look(self, running: Mapping[int, tuple[TrialFolder, RayTrial]]) -> None:
        """Look at the trials that have a process, by their numbers."""
        if self.stall_s is None or not self.is_due:
            return
        self._looked_at = now = self.clock()
        for number in self._seen.keys() - running.keys():
            del self._seen[number]
        for number, (folder, trial) in running.items():
            with suppress(OSError, ValueError):  # what another node replaces just now is looked at again
                self._look_at(number, folder, trial, now)

    def _look_at(self, number: int, folder: TrialFolder, trial: RayTrial, now: float) -> None:
        steps = self.steps(number)
        seen = self._seen.get(number)
        if seen is None or seen.steps != steps:
            self._seen[number] = _Seen(steps, now)
        elif self.stall_s is not None and now - seen.since >= self.stall_s:
            del self._seen[number]
            process = self.processes.of(trial)
            if process is None:
                return
            _end_process(*process)
            self.ended[number] = f"it did no step for {now - seen.since:.0f} s; {folder.trace} says where it was"

    def reason(self, number: int) -> str | None:
        """Return why a trial's process was ended here, once; None where it was not."""
        return self.ended.pop(number, None)


@dataclass
class Processes:
    """The processes of the trials that run, as Ray Tune has them.

    Ray has no public way to ask for them. What a process notes itself is not enough: one may hang before it does.

    Attributes:
        controller: Ray Tune's, which its scheduler is handed.
    """

    controller: Any = None

    def of(self, trial: RayTrial) -> tuple[str, int] | None:
        """Return the node's name and the id of a trial's process; None where it has none."""
        if self.controller is None:
            return None
        controller = self.controller._tune_controller
        actor = controller._trial_to_actor.get(trial)
        live = controller._actor_manager._live_actors_to_ray_actors_resources.get(actor)
        if live is None:
            return None
        known = ray._private.state.actors(live[0]._actor_id.hex())
        return (known["Address"]["NodeID"], int(known["Pid"])) if known and known.get("Pid") else None

    def host(self, node: str) -> str:
        """Return the name for people of a node; its own name where the cluster knows it no more."""
        hosts = {str(known["NodeID"]): str(known["NodeManagerHostname"]) for known in ray.nodes()}
        return hosts.get(node, node)


def _end_process(node: str, pid: int) -> None:
    """Kill a process, on whatever node it is."""
    if node == ray.get_runtime_context().get_node_id():
        _kill(pid)
        return
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    remote: Any = ray.remote(num_cpus=0, scheduling_strategy=there)(_kill)
    remote.remote(pid)  # where the node is gone too, Ray finds that out


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)  # one that was halted can write nothing
        os.kill(pid, TRACE_SIGNAL)
        time.sleep(TRACE_S)
        os.kill(pid, signal.SIGKILL)
