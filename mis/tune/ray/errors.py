"""What Ray says of a trial that failed, in one line."""

from pathlib import Path
from typing import Any

from mis.errors import MisError
from mis.files import DiskFullError

DIED = "worker process has died"
"""In what Ray says when a process is gone."""

LOW_ON_MEMORY = "low on memory"
"""In what Ray says when it has ended a process because the node's memory was full."""

LONGEST = 500
"""Characters of the line."""


def reason_of(trial: Any) -> str:
    """Return the line of a Ray trial's newest error that says what happened.

    It is read from the driver's own file: what `Trial.get_error` reads is written later.
    """
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8", errors="replace").strip() if path else ""
    newest = text.rpartition("Failure # ")[2]
    lines = newest.splitlines()[1:] or ["its process died"]
    # The last line is the exception itself; what Ray says of a full memory begins with what happened.
    reason = next((line for line in lines if LOW_ON_MEMORY in line), lines[-1])
    if DIED in newest and LOW_ON_MEMORY not in reason:
        return "its process died"  # Ray lists a dozen reasons that there may be
    return reason.strip()[:LONGEST]


def is_refused(reason: str) -> bool:
    """Return whether a trial's own values are at fault, which no other node takes either."""
    return MisError.__name__ in reason


def disk_full_in(reason: str, study: Path) -> MisError | None:
    """Return the error for a study whose disk is full, from what a trial's error says; None where it says nothing so.

    Args:
        reason: What the trial's error says.
        study: The study's folder. The disk of another folder is its node's.
    """
    if DiskFullError.__name__ in reason and str(study) in reason:
        return DiskFullError(study)
    return None


def is_out_of_memory(reason: str) -> bool:
    """Return whether Ray has ended the trial's process because the memory was full."""
    return LOW_ON_MEMORY in reason
