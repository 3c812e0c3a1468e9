"""What `sbatch` says of a script."""

import re
import shutil
import subprocess
from pathlib import Path

from mis.errors import MisError

AWAY = re.compile(r"contact slurm controller|Socket timed out|Connection refused|connect failure", re.IGNORECASE)
"""In what sbatch says where the script is not what is wrong."""


def is_there() -> bool:
    """Return whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def check(text: str, path: Path) -> str:
    """Return when and where SLURM would run a script; nothing is submitted.

    Args:
        text: The script.
        path: What its file is, or is to be, called.

    Raises:
        MisError: SLURM refuses it, or its controller does not answer.
    """
    done = _sbatch("--test-only", path=path, text=text)
    # SLURM writes "sbatch: Job 17 to start at ... using 8 processors on nodes n[1-2] in partition main".
    said = [
        line.removeprefix("sbatch: ") for line in (done.stderr + done.stdout).splitlines() if " to start at " in line
    ]
    return said[0] if said else "accepted"


def submit(path: Path) -> str:
    """Submit a script, and return the job's number.

    Raises:
        MisError: SLURM refuses it, or its controller does not answer.
    """
    return _sbatch("--parsable", str(path), path=path).stdout.strip().partition(";")[0]


def _sbatch(*words: str, path: Path, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Give a script to sbatch: its file, or its text as the input."""
    done = subprocess.run(["sbatch", *words], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1].removeprefix("sbatch: ") if said else f"exit code {done.returncode}"
        if AWAY.search(reason):
            raise MisError("SLURM's controller must answer", got=reason, do="see `sinfo`, and try again in a minute")
        raise MisError(f"SLURM must accept {path}", got=reason, do="change the options, or the script itself")
    return done
