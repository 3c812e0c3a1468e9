"""What `sbatch` says of a script."""

import shutil
import subprocess
from pathlib import Path

from mis.errors import MisError


def is_there() -> bool:
    """Return whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def check(script: Path) -> str:
    """Return when and where SLURM would run a script; nothing is submitted.

    Raises:
        MisError: SLURM refuses it.
    """
    done = _sbatch("--test-only", str(script))
    # SLURM writes "sbatch: Job 17 to start at ... using 8 processors on nodes n[1-2] in partition main".
    said = [
        line.removeprefix("sbatch: ") for line in (done.stderr + done.stdout).splitlines() if " to start at " in line
    ]
    return said[0] if said else "accepted"


def submit(script: Path) -> str:
    """Submit a script, and return the job's number.

    Raises:
        MisError: SLURM refuses it.
    """
    return _sbatch("--parsable", str(script)).stdout.strip().partition(";")[0]


def _sbatch(*words: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(["sbatch", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1].removeprefix("sbatch: ") if said else f"exit code {done.returncode}"
        raise MisError(f"SLURM must accept {words[-1]}", got=reason, do="change the options, or the script itself")
    return done
