"""`python -m mis.slurm.job tune ...`: a command on all nodes of a job of SLURM; what the batch scripts run.

Ray is started on every node, the command runs on the first one, and all of it ends together. Before the time limit (the
batch script asks for SIGUSR1 90 s before it) the command is ended, which loses nothing, and the job is queued again: in
its next turn the same script goes on where it was. It is so, too, where a node does not answer at the start.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from mis.errors import MisError, WorkerError
from mis.settings import load_settings
from mis.slurm.allocation import Job
from mis.slurm.steps import POLL_S, Ending, RayNodes, say, signal_group

COMMANDS = ("tune", "train", "scaling", "repro")
"""What a job can run: a command of `mis`, or the whole pipeline (`dvc repro`)."""

OWN = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
OWN.add_argument("--params", type=Path)
OWN.add_argument("--set", dest="overrides", action="append", default=[])
OWN.add_argument("--name")
OWN.add_argument("--resume")
"""The options of the commands that are looked at, here and before a job waits in the queue for hours."""

END_S = 45.0
"""Seconds in which the command ends by itself; then it is killed, which costs each trial its last epoch at most."""

JOIN_S = 300.0
"""Seconds in which Ray must have started on all nodes, unless --join-s says otherwise."""

REQUEUES = 100
"""How often a job may be queued again, unless --requeues says otherwise: one that never gets anywhere ends some day."""

SILENT_TURNS = 5
"""How many turns in a row may end because a node did not answer at their start: the queue may give the same one."""

SILENT = "a-node-was-silent"
"""The file in the folder of such a turn."""


class Signals:
    """The signals that tell a job to end.

    Attributes:
        limit_is_near: Whether SIGUSR1 came, which the batch script asks for before the time limit.
        terminated: Whether SIGTERM came: the limit itself, `scancel`, or a job that goes before.
    """

    def __init__(self) -> None:
        self.limit_is_near = False
        self.terminated = False
        signal.signal(signal.SIGUSR1, self._near)
        signal.signal(signal.SIGTERM, self._terminate)

    def _near(self, *_: object) -> None:
        self.limit_is_near = True

    def _terminate(self, *_: object) -> None:
        self.terminated = True

    @property
    def is_ending(self) -> bool:
        """Whether the job is to end."""
        return self.limit_is_near or self.terminated


def words_of(command: str, given: Sequence[str], job: Job, python: Sequence[str]) -> list[str]:
    """Return the command line of a command in a job.

    A search has a name of the job's own, unless it is given one, and where there is a study of that name, it goes on.
    `%a` in a word is the number of an array's element, as in the names of SLURM's files.

    Args:
        command: One of `COMMANDS`.
        given: Its own options.
        job: The job.
        python: The command that runs Python.
    """
    given = [word.replace("%a", job.array_task) if job.array_task else word for word in given]
    if command == "repro":
        return [*python, "-m", "dvc", "repro", *given]
    start = [*python, "-m", f"mis.{command}"]
    own, _ = OWN.parse_known_args(given)
    if command != "tune" or own.resume is not None or "--dry-run" in given:
        return [*start, *given]
    name = own.name or f"slurm-{job.label}"
    return [*start, "--or-resume", *([] if own.name else ["--name", name]), *given]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        "python -m mis.slurm.job", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--join-s", type=float, default=JOIN_S, help="seconds in which all nodes must have joined")
    parser.add_argument("--requeues", type=int, default=REQUEUES, help="how often the job may be queued again")
    parser.add_argument(
        "--container", default="", help="what stands before each command, as 'apptainer exec --nv x.sif'"
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("words", nargs=argparse.REMAINDER, help="the command's own options")
    options = parser.parse_args(argv)
    signals = Signals()
    try:
        return _run(options, signals, os.environ)
    except MisError as error:
        say(f"error: {error}")
        return 2
    except WorkerError as error:
        say(f"error: {error}")
        return 1


def _run(options: argparse.Namespace, signals: Signals, env: Mapping[str, str]) -> int:
    job, settings = Job.of(env), load_settings(env)
    container = shlex.split(options.container)
    python = [*container, "python"] if container else [sys.executable]
    folder = settings.checkpoints / "slurm" / f"{job.label}-{job.restarts}"
    turn = "" if job.restarts == 0 else f", turn {job.restarts + 1}"
    say(f"job {job.label}{turn} on {', '.join(job.nodes)}; the outputs of the nodes: {folder}")
    code = None
    try:
        with RayNodes(
            job, folder, env, python=python, join_s=options.join_s, is_ending=lambda: signals.is_ending
        ) as nodes:
            words = words_of(options.command, options.words, job, python)
            say(shlex.join(words))
            code = _command(words, nodes, signals)
            nodes.look()
    except Ending:
        code = None
    if code == os.EX_TEMPFAIL:
        (folder / SILENT).touch()
        if (turns := _silent_turns(job, folder.parent)) >= SILENT_TURNS:
            say(f"error: in {turns} turns in a row a node did not answer; --sbatch=--exclude=NODE leaves it out")
            return code
    return _end(job, code, nodes.head_is_lost, signals, options.requeues)


def _silent_turns(job: Job, folder: Path) -> int:
    """Return how many turns in a row, this one included, have ended because a node did not answer at their start."""
    turns = takewhile(
        lambda restarts: (folder / f"{job.label}-{restarts}" / SILENT).exists(), range(job.restarts, -1, -1)
    )
    return len(list(turns))


def _command(words: Sequence[str], nodes: RayNodes, signals: Signals) -> int | None:
    """Run the command to its end, and return its exit code; None where it was ended because the job is to end."""
    command = subprocess.Popen(words, env=nodes.env, stdin=subprocess.DEVNULL, start_new_session=True)
    while command.poll() is None and not signals.is_ending:
        nodes.look()
        time.sleep(POLL_S)
    if command.poll() is not None:
        return command.returncode
    say("the time limit is near: the command is ended" if signals.limit_is_near else "SIGTERM: the command is ended")
    _end_group(command)
    return None


def _end_group(command: subprocess.Popen[bytes]) -> None:
    """End a command and its children: DVC does not pass a signal on."""
    signal_group(command, signal.SIGTERM)
    try:
        command.wait(END_S)
    except subprocess.TimeoutExpired:
        say(f"it has not ended within {END_S:.0f} s and is killed")
    signal_group(command, signal.SIGKILL)
    command.wait()


def _end(job: Job, code: int | None, head_is_lost: bool, signals: Signals, requeues: int) -> int:
    """Queue the job again where it has more to do, and return the exit code of the batch script."""
    if code == 0:
        return 0
    if code == 2:  # what was asked for is at fault, and will be so next time
        return 2
    ended_by_limit = signals.limit_is_near or (signals.terminated and job.limit_is_near)
    may_pass = head_is_lost or code == os.EX_TEMPFAIL
    if not ended_by_limit and not (may_pass and not signals.terminated):
        if code is None:
            say("ended by SIGTERM; submit the same script again to go on")
        return 143 if code is None else code
    if job.restarts >= requeues:
        say(f"error: the job was queued {job.restarts} times, which is as often as it may be (--requeues)")
        return 1
    if ended_by_limit:
        say("the job is queued again, and goes on where it was")
    else:
        say("Ray's head was lost: once more" if head_is_lost else "a node did not answer: once more")
    job.requeue()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
