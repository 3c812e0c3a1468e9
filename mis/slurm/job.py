"""`python -m mis.slurm.job tune ...`: a command on all nodes of a job of SLURM; what the batch scripts run.

Ray is started on every node, the command runs on the first one, and all of it ends together. Before the time limit (the
batch script asks for SIGUSR1 90 s before it) the command is ended, which loses nothing, and the job is queued again: in
its next turn the same script goes on where it was. It is so, too, where a node or a storage does not answer.
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
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from string import Template

from mis.errors import MisError, WorkerError
from mis.settings import load_settings
from mis.slurm.allocation import Job, State, with_local_disk
from mis.slurm.signals import Signals
from mis.slurm.steps import POLL_S, Ending, RayNodes, ToldToEndError, say, signal_group

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

END_WITHOUT_RAY_S = 20.0
"""The same where Ray has ended: what the command still waits for may never come."""

END_AFTER_SIGTERM_S = 10.0
"""The same after SIGTERM: SLURM kills all of the job 30 s after it, and Ray has to end and SLURM to be asked before."""

JOIN_S = 300.0
"""Seconds in which Ray must have started on all nodes, unless --join-s says otherwise."""

REQUEUES = 100
"""How often a job may be queued again, unless --requeues says otherwise: one that never gets anywhere ends some day."""

SILENT_TURNS = 5
"""How many turns in a row may end because something did not answer: the queue may give the same silent node again."""

SILENT = "no-answer"
"""The file in the folder of such a turn."""

HEAD_S = 20.0
"""Seconds in which a step ends whose Ray has: a command that Ray's end has ended may be there before."""

TASK = "%a"
"""What stands for the number of an array's element, as in the names of SLURM's files."""


@dataclass(frozen=True)
class Outcome:
    """What became of a turn.

    Attributes:
        code: The exit code of the command; None where it was ended, or never begun.
        head_is_lost: Whether Ray's head ended, and with it the whole cluster.
        not_joined: Why Ray has not started on all nodes; "" where it has.
    """

    code: int | None = None
    head_is_lost: bool = False
    not_joined: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether the next turn may do better, though the command has ended by itself."""
        return self.head_is_lost or self.code == os.EX_TEMPFAIL


def with_task(words: Sequence[str], task: str | None) -> list[str]:
    """Return words with the number of an array's element for `%a`; None leaves them as they are."""
    return [word if task is None else word.replace(TASK, task) for word in words]


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
    given = with_task(given, job.array_task)
    if command == "repro":
        return [*python, "-m", "dvc", "repro", *given]
    start = [*python, "-m", f"mis.{command}"]
    if command == "scaling" and (not given or given[0].startswith("-")):
        start.append("measure")  # what a job is for; the other commands of `mis.scaling` need no devices
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
        return _run(options, signals, with_local_disk(os.environ))
    except MisError as error:
        say(f"error: {error}")
        return 2


def _run(options: argparse.Namespace, signals: Signals, env: Mapping[str, str]) -> int:
    job, settings = Job.of(env), load_settings(env)
    container = [_with_variables(word, env) for word in shlex.split(options.container)]
    python = [*container, "python"] if container else [sys.executable]
    folder = settings.checkpoints / "slurm" / f"{job.label}-{job.restarts}"
    (folder / SILENT).unlink(missing_ok=True)  # of an earlier job of the same number
    turn = "" if job.restarts == 0 else f", turn {job.restarts + 1}"
    say(f"job {job.label}{turn} on {', '.join(job.nodes)}; the outputs of the nodes: {folder}")
    last_turn = job.restarts >= options.requeues
    nodes = RayNodes(job, folder, env, python=python, join_s=options.join_s, signals=signals, last_turn=last_turn)
    try:
        with nodes:
            words = words_of(options.command, options.words, job, python)
            say(shlex.join(words))
            code = _command(words, nodes, signals)
            _look_for_the_head(nodes, code)
        outcome = Outcome(code, nodes.head_is_lost)
    except Ending:
        outcome = Outcome()
    except WorkerError as error:
        outcome = Outcome(not_joined=str(error), head_is_lost=isinstance(error, ToldToEndError))
    to_go_on = way_on(options.command, options.words, job)
    if outcome.code == os.EX_TEMPFAIL and not signals.is_ending:
        (folder / SILENT).touch()
        if (turns := _silent_turns(job, folder.parent)) >= SILENT_TURNS:
            say(
                f"error: in {turns} turns in a row something did not answer, see above; where it was always the same "
                f"node, --sbatch=--exclude=NODE leaves it out; to go on, {to_go_on}"
            )
            return os.EX_TEMPFAIL
    return end(job, outcome, signals, options.requeues, to_go_on)


def _with_variables(word: str, env: Mapping[str, str]) -> str:
    """Return a word of --container with the job's variables in place of their names."""
    found = Template(word).safe_substitute(env)
    if "$" in found:
        raise MisError("a variable in --container must be set in the job", got=word, do="leave it out")
    return found


def way_on(command: str, given: Sequence[str], job: Job) -> str:
    """Return what a person does so that an ended job goes on where it was.

    Args:
        command: One of `COMMANDS`.
        given: Its own options.
        job: The job.
    """
    own, _ = OWN.parse_known_args(given)
    if command != "tune" or own.resume is not None or own.name is not None:
        return "submit the same script again"
    if job.array_task is None:
        return f"submit the same script again: sbatch SCRIPT --name slurm-{job.label}"
    name = f"slurm-{job.label.removesuffix(job.array_task)}{TASK}"
    return f"submit the same script again: sbatch --array={job.array_task} SCRIPT --name {name} for this element"


def _look_for_the_head(nodes: RayNodes, code: int | None) -> None:
    """Look which nodes are lost; after a command that has failed in a way that Ray's end may explain, for some time."""
    deadline = time.monotonic() + (0.0 if code in (None, 0, os.EX_TEMPFAIL) else HEAD_S)
    nodes.look()
    while not nodes.head_is_lost and time.monotonic() < deadline:
        time.sleep(POLL_S)
        nodes.look()


def _silent_turns(job: Job, folder: Path) -> int:
    """Return how many turns in a row, this one included, have ended because a node did not answer at their start."""
    turns = takewhile(
        lambda restarts: (folder / f"{job.label}-{restarts}" / SILENT).exists(), range(job.restarts, -1, -1)
    )
    return len(list(turns))


def _command(words: Sequence[str], nodes: RayNodes, signals: Signals) -> int | None:
    """Run the command to its end, and return its exit code; None where it was ended: the job is to end, or Ray has."""
    command = subprocess.Popen(words, env=nodes.env, stdin=subprocess.DEVNULL, start_new_session=True)
    while command.poll() is None and not signals.is_ending:
        nodes.look()
        if nodes.head_is_lost:
            say("Ray's head has ended, and the whole cluster with it: the command is ended")
            _end_group(command, signals, END_WITHOUT_RAY_S)
            return None
        time.sleep(POLL_S)
    if command.poll() is None:
        say("SIGTERM: the command is ended" if signals.terminated else "the time limit is near: the command is ended")
        _end_group(command, signals)
        return None
    if command.returncode != 0 and signals.terminated:
        say("SIGTERM: the command has ended")  # with Ray, which it ends too
    return _exit_code(command.returncode)


def _exit_code(code: int) -> int:
    """Return a command's exit code as a shell has it, and say it where a signal has ended it."""
    if code >= 0:
        return code
    memory = ": where nobody has killed it, its node had too little memory" if -code == signal.SIGKILL else ""
    say(f"the command was ended by signal {-code}{memory}")
    return 128 - code


def _end_group(command: subprocess.Popen[bytes], signals: Signals, within_s: float = END_S) -> None:
    """End a command and its children: DVC does not pass a signal on."""
    signal_group(command, signal.SIGTERM)
    begun = time.monotonic()
    while command.poll() is None:
        if time.monotonic() > signals.deadline(begun + within_s, END_AFTER_SIGTERM_S):
            say(f"it has not ended within {time.monotonic() - begun:.0f} s and is killed")
            break
        time.sleep(POLL_S / 5)
    signal_group(command, signal.SIGKILL)
    command.wait()


def end(job: Job, outcome: Outcome, signals: Signals, requeues: int, way_on: str = "submit it again") -> int:
    """Queue the job again where it has more to do, and return the exit code of the batch script.

    Args:
        job: The job.
        outcome: What became of this turn.
        signals: The signals that came.
        requeues: How often the job may be queued again.
        way_on: What a person does so that it goes on where it was.
    """
    if outcome.not_joined:
        say(f"error: {outcome.not_joined}")
    elif outcome.code == 0 or not (outcome.may_pass or signals.is_ending):
        return 1 if outcome.code is None else outcome.code
    try:
        state = job.state()
        why = _why_again(job, outcome, signals, state)
        if why and job.restarts < requeues:
            say(why)
            job.requeue()
            return 0
    except MisError as error:
        say(f"error: {error}; nothing is lost, but the job is not queued again: to go on, {way_on}")
        return os.EX_TEMPFAIL
    if why:
        say(f"error: the job was queued {job.restarts} times, which is as often as it may be (--requeues)")
    elif state.has_ended:
        say(f"ended by SLURM ({state.name}, {state.reason}); where it is not queued again by itself, {way_on}")
        return 128 + signal.SIGTERM
    return 1


def _why_again(job: Job, outcome: Outcome, signals: Signals, state: State) -> str:
    """Return why a job is queued again that has not done what it is for, or "" where it is not."""
    if state.has_ended and not state.limit_is_near:
        return ""  # somebody's wish, or SLURM queues it again itself
    # SIGTERM after SIGUSR1 need not be the limit: SLURM knows.
    if state.limit_is_near if signals.terminated else signals.limit_is_near:
        return "the job is queued again, and goes on where it was"
    if signals.terminated:
        return "SIGTERM to a job that SLURM has not ended: it makes room, is queued again, and goes on where it was"
    if outcome.head_is_lost:
        return "Ray's head was lost: once more"
    if outcome.code == os.EX_TEMPFAIL:
        return "what the command needs did not answer, see above: once more"
    return "Ray had started in an earlier turn: once more" if outcome.not_joined and job.restarts > 0 else ""


if __name__ == "__main__":
    raise SystemExit(main())
