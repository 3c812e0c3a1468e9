"""What SLURM has given a job, read from the environment of its batch script.

The modules that the batch script runs (`job.py`, `steps.py`, this one) need nothing but Python 3.9: where a container
has the libraries, they run outside of it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from mis.errors import MisError

LIMIT_IS_NEAR_S = 180
"""Seconds before its time limit in which a job that is to end is thought to end because of it."""


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
            nodes=tuple(_ask("scontrol", "show", "hostnames", nodes).split()),
            head=head,
        )

    @property
    def others(self) -> tuple[str, ...]:
        """The nodes beside that of the batch script."""
        return tuple(node for node in self.nodes if node != self.head)

    @property
    def limit_is_near(self) -> bool:
        """Whether the job's time is nearly up."""
        left = seconds_of(_ask("squeue", "--noheader", f"--job={self.number}", "--format=%L"))
        return left is not None and left <= LIMIT_IS_NEAR_S

    def requeue(self) -> None:
        """Queue the job again, which ends it."""
        _ask("scontrol", "requeue", self.number)


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


def _ask(*command: str) -> str:
    """Return what a command of SLURM prints; a controller that does not answer is asked again by the command itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MisError(f"{' '.join(command)} must succeed, got {done.stderr or done.stdout}")
    return done.stdout.strip()
