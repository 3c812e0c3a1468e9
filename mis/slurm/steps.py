"""Ray on every node of a job: a step of SLURM for each node, which ends with the job."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mis.errors import WorkerError
from mis.slurm.allocation import Job
from mis.slurm.signals import Signals

POLL_S = 0.5

END_S = 20.0
"""Seconds in which the steps end by themselves."""

OTHERS_END_AFTER_SIGTERM_S, HEAD_ENDS_AFTER_SIGTERM_S = 14.0, 18.0
"""Seconds after SIGTERM in which they must have ended: SLURM has sent it to them as well."""

NOT_JOINED = 3
"""The exit code of `mis.slurm.joined` where nodes have not joined in time."""

HEAD_FILE = "head"
"""The file in a job's folder to which the first node's step writes the address of Ray's head."""


def say(line: str) -> None:
    """Print a line to the job's output."""
    print(f"slurm: {line}", file=sys.stderr, flush=True)  # noqa: T201


class ToldToEndError(WorkerError):
    """A step ended in order before all nodes had joined: SLURM has told it to, as to a job that makes room."""


class RayNodes:
    """Ray on the nodes of a job, from the start of its steps to their end.

    Attributes:
        job: The job.
        folder: The job's folder, which all nodes see: it takes the outputs of the steps.
        env: The environment of all that uses this Ray.
        lost: The nodes whose steps have ended.
    """

    def __init__(
        self,
        job: Job,
        folder: Path,
        env: Mapping[str, str],
        *,
        python: Sequence[str],
        join_s: float,
        signals: Signals,
        last_turn: bool = False,
    ) -> None:
        """Start nothing yet.

        Args:
            job: The job.
            folder: See above.
            env: The environment of the batch script.
            python: The command that runs Python on a node, in a container where there is one.
            join_s: Seconds in which all nodes must have joined.
            signals: What tells the job to end.
            last_turn: Whether the job is not to be queued again, also where the first node is lost.
        """
        self.job = job
        self.folder = folder
        # A token of this job alone: who has none is refused by all of Ray's servers.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.env = {name: value for name, value in env.items() if name != "RAY_ADDRESS"} | token
        self.lost: list[str] = []
        self._python = [*python]
        self._join_s = join_s
        self._signals = signals
        self._last_turn = last_turn
        self._steps: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> RayNodes:
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def log(self, node: str) -> Path:
        """Return the file with the output of a node's step."""
        return self.folder / f"ray-{node}.log"

    def look(self) -> None:
        """Say which nodes have been lost since the last look."""
        for node, step in self._steps.items():
            if node not in self.lost and step.poll() is not None:
                self.lost.append(node)
                say(f"node {node} has left the job's Ray (exit code {step.returncode}); its log: {self.log(node)}")

    @property
    def head_is_lost(self) -> bool:
        """Whether Ray's head has ended, and with it the whole cluster."""
        return self.job.head in self.lost

    def _start(self) -> None:
        # A cluster that was set up anew counts its jobs from the start again.
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / HEAD_FILE).unlink(missing_ok=True)
        deadline = time.monotonic() + self._join_s
        self._start_step(self.job.head, "--head-file", str(self.folder / HEAD_FILE))
        address = self._wait_for_head(deadline)
        self.env["RAY_ADDRESS"] = address
        for node in self.job.others:
            self._start_step(node, "--address", address)
        self._wait_for_all(deadline)
        say("Ray listens on all interfaces of these nodes, for who has this job's token: docs/security.md")

    def _start_step(self, node: str, *options: str) -> None:
        # Several steps share the node; without --cpus-per-task each has all of the job's cores and GPUs there.
        srun = ["srun", "--nodes=1", "--ntasks=1", f"--nodelist={node}", "--overlap", "--export=ALL", "--unbuffered"]
        srun += ["--no-kill", f"--output={self.log(node)}", f"--job-name=ray-{node}"]
        inner = [*self._python, "-m", "mis.slurm.node", "--label", node, *options]
        if node != self.job.head:
            outlives = ["--node", self.job.head, "--address", self.env["RAY_ADDRESS"]]
            outlives += ["--last-turn"] if self._last_turn else []
            inner = [sys.executable, "-m", "mis.slurm.first_node", *outlives, "--", *inner]
        # A session of its own: a signal to the batch script's group is not one to the nodes.
        self._steps[node] = subprocess.Popen(
            [*srun, *inner], env=self.env, stdin=subprocess.PIPE, start_new_session=True
        )

    def _wait_for_head(self, deadline: float) -> str:
        path = self.folder / HEAD_FILE
        while not path.exists():
            self._check(deadline, (self.job.head,))
            time.sleep(POLL_S)
        return path.read_text(encoding="utf-8")

    def _wait_for_all(self, deadline: float) -> None:
        """Wait until Ray knows all nodes; who asks it is a process of its own, which has Ray's libraries."""
        within = max(1.0, deadline - time.monotonic())
        command = [*self._python, "-m", "mis.slurm.joined", "--within-s", f"{within:.0f}", *self.job.nodes]
        asking = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL)
        try:
            while asking.poll() is None:
                self._check(deadline + END_S, self.job.nodes)
                time.sleep(POLL_S)
        finally:
            asking.kill()
            asking.wait()
        if asking.returncode != 0:
            logs = ", ".join(str(self.log(node)) for node in self.job.nodes)
            if asking.returncode == NOT_JOINED:
                what = f"not all nodes have joined Ray within {self._join_s:.0f} s"
            else:
                what = f"mis.slurm.joined could not ask Ray for its nodes (exit code {asking.returncode}), see above"
            raise WorkerError(f"{what}; the logs of the nodes: {logs}")

    def _check(self, deadline: float, nodes: Sequence[str]) -> None:
        """Raise where the wait for some nodes is in vain."""
        if self._signals.is_ending:
            raise Ending
        for node in nodes:
            step = self._steps.get(node)
            if step is not None and step.poll() is not None:
                kind = ToldToEndError if step.returncode == 0 else WorkerError
                raise kind(f"Ray has not started on node {node} ({_last_line(self.log(node))}); {self.log(node)}")
        if time.monotonic() > deadline:
            raise WorkerError(f"Ray has not started on {', '.join(nodes)} within {self._join_s:.0f} s; {self.folder}")

    def end(self) -> None:
        """End the steps of this job, the head's last; no other job's Ray is touched, on the same nodes or elsewhere."""
        others = [step for node, step in self._steps.items() if node != self.job.head]
        head = [step for node, step in self._steps.items() if node == self.job.head]
        for steps, after_sigterm_s in ((others, OTHERS_END_AFTER_SIGTERM_S), (head, HEAD_ENDS_AFTER_SIGTERM_S)):
            for step in steps:
                if step.stdin is not None:
                    step.stdin.close()  # Ray ends on the node then; SIGTERM would have srun kill it
            usual = time.monotonic() + END_S
            while any(step.poll() is None for step in steps):
                if time.monotonic() > self._signals.deadline(usual, after_sigterm_s):
                    break
                time.sleep(0.1)
            for step in steps:
                if step.poll() is None:
                    signal_group(step, signal.SIGKILL)
                    step.wait()
        self._steps.clear()


class Ending(Exception):  # noqa: N818 - no error: the job was told to end
    """The job is to end."""


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process that leads a group, and to all of the group that is left."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
