"""The batch scripts of jobs: `python -m mis.slurm` writes them, and those in pipelines/slurm/ were written by it."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mis.errors import MisError

SIGNAL_S = 90
"""Seconds before the time limit in which SLURM sends the signal."""

TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
"""A time as SLURM reads it: minutes, minutes:seconds, hours:minutes:seconds, or days before each."""

DEVICES_OF_TRAINING = (
    '--set distribute.workers="$SLURM_JOB_NUM_NODES"',
    '--set distribute.devices_per_worker="${SLURM_GPUS_ON_NODE:-1}"',
)
"""One training over all devices of a job: a worker on each node, with all of its GPUs."""


@dataclass(frozen=True)
class Script:
    """What a batch script asks for and runs.

    Attributes:
        command: One of `mis.slurm.job.COMMANDS`.
        words: The command's own options.
        nodes: How many nodes.
        gpus_per_node: GPUs of each; 0 asks for none.
        gpu_type: Their type, as SLURM has it; "" takes any.
        time: The time limit, as SLURM reads it; None leaves it to the partition.
        cpus_per_node: Cores of each node; None leaves them to the cluster.
        options: Further options of sbatch, as `--partition=gpu`.
        modules: Modules to load.
        setup: Further lines of shell before the command.
        venv: The folder of the virtual environment.
        container: What stands before each command that needs the libraries, as `apptainer exec --nv mis.sif`.
        join_s: Seconds in which Ray must have started on all nodes; None takes the job's own.
        requeues: How often the job may be queued again; None takes the job's own.
        takes_all_devices: Whether a training is to take all devices of the job.
        written_by: The command that has made it; "" names none.
    """

    command: str
    words: Sequence[str] = ()
    nodes: int = 1
    gpus_per_node: int = 0
    gpu_type: str = ""
    time: str | None = None
    cpus_per_node: int | None = None
    options: Sequence[str] = ()
    modules: Sequence[str] = ()
    setup: Sequence[str] = ()
    venv: str = ".venv"
    container: str = ""
    join_s: int | None = None
    requeues: int | None = None
    takes_all_devices: bool = False
    written_by: str = ""

    def __post_init__(self) -> None:
        """Refuse what sbatch would refuse.

        Raises:
            MisError: The time is none that SLURM reads, a number is too small, or something is longer than a line.
        """
        texts = [self.venv, self.container, self.time or "", *self.words, *self.options, *self.modules, *self.setup]
        texts.append(self.written_by)
        for text in texts:
            # What follows a line's end in a comment or in a line for sbatch would be a line of shell.
            if len(text.splitlines()) > 1 or text.endswith(("\n", "\r")):
                raise MisError("an option must be a single line", got=repr(text), do="put more into a file")
        try:
            shlex.split(self.container)
        except ValueError as error:
            raise MisError("--container must be words of a shell", got=f"{self.container} ({error})") from None
        if (self.join_s is not None and self.join_s < 1) or (self.requeues is not None and self.requeues < 0):
            raise MisError("--join-s must be at least 1, --requeues at least 0", got=f"{self.join_s}, {self.requeues}")
        if self.nodes < 1 or self.gpus_per_node < 0 or (self.cpus_per_node is not None and self.cpus_per_node < 1):
            raise MisError(
                "--nodes and --cpus-per-node must be at least 1, --gpus-per-node at least 0",
                got=f"{self.nodes}, {self.cpus_per_node}, {self.gpus_per_node}",
            )
        if self.time is not None and not TIME.fullmatch(self.time):
            raise MisError(
                "--time must be a time as SLURM reads it", got=repr(self.time), do="write 24:00:00, or 2-12:00"
            )

    def text(self) -> str:
        """Return the script."""
        asked = [f"--job-name=mis-{self.command}", f"--nodes={self.nodes}", "--ntasks-per-node=1"]
        gpus = f"{self.gpu_type}:{self.gpus_per_node}" if self.gpu_type else str(self.gpus_per_node)
        asked += [f"--gpus-per-node={gpus}"] if self.gpus_per_node else []
        asked += [f"--cpus-per-task={self.cpus_per_node}"] if self.cpus_per_node else []
        asked += [f"--time={self.time}"] if self.time else []
        asked += [f"--signal=B:USR1@{SIGNAL_S}", "--requeue", "--no-kill", "--open-mode=append", *self.options]
        if not any(option.startswith(("--output", "-o")) for option in self.options):
            is_array = any(option.startswith(("--array", "-a")) for option in self.options)
            asked.append(f"--output=slurm-%x-{'%A_%a' if is_array else '%j'}.out")
        before = [f"module load {shlex.join(module.split())} || exit 2" for module in self.modules]
        before += self.setup
        before += [] if self.container else [f"source {shlex.quote(self.venv)}/bin/activate || exit 2"]
        lines = [
            "#!/bin/bash",
            *([f"# Written by: {self.written_by}"] if self.written_by else []),
            *(f"#SBATCH {option}" for option in asked),
            "",
            "# Ray on every node, the command on the first one. 90 s before the time limit the command is ended, and",
            "# the job is queued again: it goes on where it was. A node that is lost costs its trials some minutes.",
            *before,
            f"exec {self._job()}",
        ]
        return "\n".join(lines) + "\n"

    def _job(self) -> str:
        """Return the command of the script, to which the words of `sbatch SCRIPT words` are added."""
        python = "python3" if self.container else "python"
        words = [python, "-m", "mis.slurm.job"]
        words += [f"--container={self.container}"] if self.container else []
        words += [f"--join-s={self.join_s}"] if self.join_s is not None else []
        words += [f"--requeues={self.requeues}"] if self.requeues is not None else []
        quoted = [shlex.join([*words, self.command])]
        quoted += DEVICES_OF_TRAINING if self.takes_all_devices else ()
        quoted += [shlex.join(self.words)] if self.words else []
        return " \\\n    ".join([*quoted, '"$@"'])
