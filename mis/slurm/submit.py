"""What `sbatch` says of a script."""

import re
import shutil
import subprocess
from pathlib import Path

from mis.errors import MisError
from mis.slurm.allocation import AWAY


class ControllerAwayError(MisError):
    """SLURM's controller does not answer."""


SUBMITTED = "--parsable"
"""The option of sbatch with which a job is submitted, and its number printed."""


def is_there() -> bool:
    """Return whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def check(text: str, path: Path) -> str:
    """Return when and where SLURM would run a script; nothing is submitted.

    Args:
        text: The script.
        path: What its file is, or is to be, called.

    Raises:
        MisError: SLURM refuses it.
        ControllerAwayError: Its controller does not answer.
    """
    done = _sbatch("--test-only", path=path, text=text)
    # SLURM writes "sbatch: Job 17 to start at ... using 8 processors on nodes n[1-2] in partition main".
    said = [
        line.removeprefix("sbatch: ") for line in (done.stderr + done.stdout).splitlines() if " to start at " in line
    ]
    return said[0] if said else "accepted"


def submit(text: str, path: Path) -> str:
    """Submit a script, and return the job's number.

    Args:
        text: The script.
        path: What its file is called.

    Raises:
        MisError: SLURM refuses it.
        ControllerAwayError: Its controller does not answer.
    """
    return _sbatch(SUBMITTED, path=path, text=text).stdout.strip().partition(";")[0]


def output_of(number: str) -> str:
    """Return the file to which a job writes, as SLURM has it; "" where that is not known, as of an array."""
    if shutil.which("scontrol") is None:
        return ""
    done = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=False)
    found = re.findall(r"^ *StdOut=(.+)$", done.stdout, flags=re.MULTILINE)
    return found[0] if len(found) == 1 and "ArrayJobId" not in done.stdout else ""


def _sbatch(option: str, *, path: Path, text: str) -> "subprocess.CompletedProcess[str]":
    """Give a script to sbatch as its input: what is submitted is what was checked, whatever becomes of the file."""
    done = subprocess.run(["sbatch", option], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).strip().splitlines() if not line.startswith("Try ")]
        reason = said[-1].removeprefix("sbatch: ") if said else f"exit code {done.returncode}"
        if AWAY.search(reason):
            # What it has not answered to it may have taken all the same.
            first = "see `squeue --me` whether it has taken the job, and " if option == SUBMITTED else ""
            raise ControllerAwayError("SLURM's controller must answer", got=reason, do=f"{first}try again in a minute")
        raise MisError(f"SLURM must accept {path}", got=reason, do="change the options, or the script itself")
    return done
