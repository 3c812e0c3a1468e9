"""The faults: what each does to a command that runs, or to the files of one that has ended."""

import random
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass
class Target:
    """What faults are done to.

    Attributes:
        project: The project's folder.
        process: The command that runs.
        proxy: In front of MLflow's server.
        random: Draws what is random in a fault.
        done: The names of the faults that were done.
    """

    project: Path
    process: object
    proxy: object
    random: random.Random
    done: list[str] = field(default_factory=list)

    @property
    def hog(self):
        """The file that fills the disk."""
        return self.project / "hog"


def children(target):
    """Return the processes that the command has started."""
    try:
        return psutil.Process(target.process.pid).children(recursive=True)
    except psutil.Error:
        return []


def _trials(target):
    found = []
    for process in children(target):
        with suppress(psutil.Error):
            if "ImplicitFunc" in " ".join(process.cmdline()):
                found.append(process)
    return found


def _signal(processes, number):
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
    return bool(processes)


# ---- To a command that runs ----


def kill_command(target):
    """Kill -9 the command and all that it has started, as the end of a job does."""
    started = children(target)
    target.process.kill()
    _signal(started, signal.SIGKILL)
    return True


def interrupt_command(target):
    """Ctrl-C."""
    target.process.send_signal(signal.SIGINT)
    return True


def terminate_command(target):
    """SIGTERM, as from SLURM at the end of its time."""
    target.process.send_signal(signal.SIGTERM)
    return True


def kill_trial(target):
    """Kill -9 the process of a trial."""
    found = _trials(target)
    return _signal(target.random.sample(found, min(1, len(found))), signal.SIGKILL)


def halt_trial(target):
    """Let the process of a trial do nothing any more."""
    found = _trials(target)
    return _signal(target.random.sample(found, min(1, len(found))), signal.SIGSTOP)


def lose_mlflow(target):
    """Nobody answers at MLflow's address."""
    target.proxy.down()
    return True


def hang_mlflow(target):
    """MLflow accepts requests and answers none."""
    target.proxy.hang()
    return True


def lose_answers(target):
    """MLflow does what it is asked for, and says that it has failed."""
    left = [target.random.randint(1, 5)]

    def loses(path):
        left[0] -= "/api/" in path
        return left[0] >= 0 and "/api/" in path

    target.proxy.loses = loses
    return True


def fill_disk(target):
    """No byte is left on the disk of the project."""
    with suppress(OSError), target.hog.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)
    with suppress(OSError), target.hog.open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
    return True


RUNNING: dict[str, Callable[[Target], bool]] = {
    "command killed": kill_command,
    "command interrupted": interrupt_command,
    "command terminated": terminate_command,
    "trial killed": kill_trial,
    "trial halted": halt_trial,
    "MLflow lost": lose_mlflow,
    "MLflow hangs": hang_mlflow,
    "MLflow's answers lost": lose_answers,
    "disk full": fill_disk,
}
"""Faults to a command that runs; each returns whether there was something to do it to."""

OFTEN = ("trial killed", "trial halted")
"""Faults for which there is nothing to do them to most of the time."""


# ---- To the files of a command that has ended ----


def _damage(path, target):
    content = path.read_bytes()
    kind = target.random.choice(("empty", "cut", "changed"))
    middle = len(content) // 2
    changed = content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 64]) + content[middle + 64 :]
    path.write_bytes({"empty": b"", "cut": content[:middle], "changed": changed}[kind])


def damage_checkpoint(target):
    """A file of the newest of two checkpoints cannot be read."""
    folders = {path.parent for path in target.project.glob("checkpoints/**/epoch-*") if path.is_dir()}
    pairs = [sorted(folder.glob("epoch-*")) for folder in sorted(folders)]
    pairs = [pair for pair in pairs if len(pair) == 2 and not (pair[0].parent / "outcome.json").exists()]
    if not pairs:
        return False
    _damage(target.random.choice(sorted(target.random.choice(pairs)[1].iterdir())), target)
    return True


def damage_outcome(target):
    """What became of a trial cannot be read; its checkpoints are there."""
    found = sorted(target.project.glob("checkpoints/tune/*/trials/*/outcome.json"))
    found = [path for path in found if list(path.parent.glob("epoch-*"))]
    if not found:
        return False
    path = target.random.choice(found)
    path.write_bytes(path.read_bytes()[: target.random.randint(0, 20)])
    return True


def tear_lines(target):
    """The end of a line is missing, as after a loss of power while it was written."""
    found = sorted(
        (*target.project.glob("checkpoints/tune/*/journal.log"), *target.project.glob("mlruns/outbox/*/log*"))
    )
    for path in found:
        with path.open("ab") as file:
            file.write(b'{"op_code": 4, "work' if target.random.random() < 0.5 else b'{"a": 1} \n{"b"')
    return bool(found)


def leave_unfinished(target):
    """What a process was about to write is still there under another name."""
    found = sorted(target.project.glob("checkpoints/**/epoch-*"))
    for path in found[:2]:
        unfinished = path.with_name(f".epoch-{int(path.name[-4:]) + 1:04d}.unfinished")
        unfinished.mkdir(exist_ok=True)
        (unfinished / "last.npz").write_bytes(b"half")
    return bool(found)


AT_REST: dict[str, Callable[[Target], bool]] = {
    "checkpoint damaged": damage_checkpoint,
    "outcome damaged": damage_outcome,
    "line torn": tear_lines,
    "write unfinished": leave_unfinished,
}
"""Faults to the files of a command that has ended."""


def mend(target):
    """End all faults that last: whoever comes next finds MLflow and space."""
    target.proxy.loses = lambda path: False  # noqa: ARG005
    target.proxy.resume()
    target.proxy.down()
    target.proxy.up()
    target.hog.unlink(missing_ok=True)
