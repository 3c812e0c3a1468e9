"""What SLURM has given a job, read from the environment of its batch script.

What the batch script runs (`job.py`, `first_node.py`, and what they import, of `mis` too) needs nothing but Python 3.9:
where a container has the libraries, it runs outside of it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mis.errors import MisError

LIMIT_IS_NEAR_S = 180
"""Seconds before its time limit in which a job that is to end is thought to end because of it."""

ANSWER_S = 20.0
"""Seconds for which SLURM's controller is asked again: one that is restarted answers nothing for a moment."""

AWAY = re.compile(
    r"contact slurm controller|Socket timed out|Connection refused|connect failure|Zero Bytes were|standby mode|"
    r"configuration source|DNS SRV|unable to resolve",
    re.IGNORECASE,
)
"""In what SLURM's commands say where its controller does not answer."""

PATIENT_S = 300.0
"""The same where a whole search waits for the answer: another controller takes over after a minute or two."""


@dataclass(frozen=True)
class State:
    """What SLURM says of a job.

    Attributes:
        name: `RUNNING`; `COMPLETING` where it is being ended; `UNKNOWN` where SLURM knows nothing of it any more.
        reason: Why, as `TimeLimit`; `None` where there is no reason.
        left_s: The seconds until its time limit; None where it has none, and where that is over.
        nodes: The names of its nodes that are not lost.
    """

    name: str
    reason: str
    left_s: int | None
    nodes: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """Whether SLURM is ending the job, or has ended it."""
        return self.name != "RUNNING"

    @property
    def limit_is_near(self) -> bool:
        """Whether the job ends because of its time limit."""
        if self.has_ended:
            return self.reason == "TimeLimit"
        return self.left_s is not None and self.left_s <= LIMIT_IS_NEAR_S


@dataclass(frozen=True)
class Job:
    """A job that runs, or an element of an array of jobs.

    Attributes:
        number: Its own number, also of an element of an array.
        label: What tells it from others in names: `17`, or `17-3` for element 3 of the array 17.
        array_task: The number of an element of an array, else None.
        restarts: How often it was queued again.
        nodes: The names of its nodes.
        head: The node of the batch script.
    """

    number: str
    label: str
    array_task: str | None
    restarts: int
    nodes: tuple[str, ...]
    head: str

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Job:
        """Read the job from the environment of its batch script.

        Raises:
            MisError: This is no batch script of SLURM.
        """
        number, nodes, head = (env.get(name) for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURMD_NODENAME"))
        if number is None or nodes is None or head is None:
            raise MisError(
                "mis.slurm.job must run in a batch script of SLURM, where SLURM_JOB_ID, SLURM_JOB_NODELIST and "
                "SLURMD_NODENAME are set",
                do="submit it: python -m mis.slurm --submit ...",
            )
        array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
        return cls(
            number=number,
            label=f"{array}-{task}" if array and task else number,
            array_task=task,
            restarts=int(env.get("SLURM_RESTART_COUNT") or 0),
            nodes=_names(nodes),
            head=head,
        )

    @property
    def others(self) -> tuple[str, ...]:
        """The nodes beside that of the batch script."""
        return tuple(node for node in self.nodes if node != self.head)

    @property
    def id(self) -> str:
        """The job for SLURM's commands: an element of an array may have the number of the whole array."""
        return self.number if self.array_task is None else self.label.replace("-", "_")

    def state(self) -> State:
        """Return what SLURM says of the job now, however long its controller takes to answer."""
        return state_of(self.id, PATIENT_S)

    def requeue(self) -> None:
        """Queue the job again, which ends it, however long the controller takes to answer."""
        requeue(self.id, PATIENT_S)


def with_local_disk(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose temporary files are where SLURM has a node's own disk for the job, if it says where.

    >>> with_local_disk({"SLURM_TMPDIR": "/local/17", "TMPDIR": "/tmp"})["TMPDIR"]
    '/local/17'
    """
    local = env.get("SLURM_TMPDIR")
    return {**env, "TMPDIR": local} if local else {**env}


def id_of(env: Mapping[str, str]) -> str:
    """Return the job for SLURM's commands, from the environment of one of its steps."""
    array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else env["SLURM_JOB_ID"]


def state_of(job: str, within_s: float = ANSWER_S) -> State:
    """Return what SLURM says of a job now.

    Args:
        job: The job for SLURM's commands.
        within_s: Seconds for which a controller that does not answer is asked again.

    Raises:
        MisError: The controller does not answer.
    """
    said = _ask("squeue", "--noheader", "--states=all", f"--job={job}", "--format=%T|%r|%L|%N", within_s=within_s)
    name, reason, left, nodes = [*said.split("|"), "", "", ""][:4] if said else ("UNKNOWN", "", "", "")
    return State(name, reason, seconds_of(left), _names(nodes))


def requeue(job: str, within_s: float = ANSWER_S) -> None:
    """Queue a job again, which ends it.

    Args:
        job: The job for SLURM's commands.
        within_s: Seconds for which a controller that does not answer is asked again.

    Raises:
        MisError: SLURM refuses it, or the controller does not answer.
    """
    _ask("scontrol", "requeue", job, within_s=within_s)


def cancel(job: str) -> None:
    """End a job for good.

    Raises:
        MisError: SLURM refuses it, or the controller does not answer.
    """
    _ask("scancel", job)


def seconds_of(text: str) -> int | None:
    """Return the seconds of a time as SLURM writes it; None where it is none, as UNLIMITED.

    >>> seconds_of("1-02:03:04"), seconds_of("15:00"), seconds_of("UNLIMITED")
    (93784, 900, None)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _names(nodes: str) -> tuple[str, ...]:
    """Return the names of nodes from a list of SLURM's, as `n[1-3]`."""
    return tuple(_ask("scontrol", "show", "hostnames", nodes).split()) if nodes else ()


def _ask(*command: str, within_s: float = ANSWER_S) -> str:
    """Return what a command of SLURM prints; where it fails, it is tried again for some seconds.

    Args:
        command: The command.
        within_s: Seconds for which a controller that does not answer is asked; one that refuses is for `ANSWER_S`.
    """
    begun = time.monotonic()
    deadline = begun + within_s
    while True:
        left = max(1.0, deadline - time.monotonic())
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=min(left, ANSWER_S))
            said = done.stderr or done.stdout
        except subprocess.TimeoutExpired:
            done, said = None, "no answer"
        except FileNotFoundError:
            raise MisError(f"{command[0]} must be found on PATH", do="load SLURM's own module in the script") from None
        if done is not None and done.returncode == 0:
            return done.stdout.strip()
        if done is not None and not AWAY.search(said):
            deadline = min(deadline, begun + ANSWER_S)
        if time.monotonic() >= deadline:
            raise MisError(f"{' '.join(command)} must succeed within {deadline - begun:.0f} s", got=said)
        time.sleep(1.0)
