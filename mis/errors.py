"""The errors that a command shows without a traceback."""

from __future__ import annotations

_NO_VALUE = object()


class MisError(Exception):
    """An error of the input, in a single line: the rule, the value received and what to do.

    A command prints it without a traceback and ends with exit code 2 (`mis.cli`). Any other exception is a defect of
    `mis` and keeps its traceback.

    Attributes:
        broken: The rule and the value received.
        do: What to do; "" where that is not said.
    """

    def __init__(self, rule: str, *, got: object = _NO_VALUE, do: str | None = None) -> None:
        """Join the parts to `rule, got value; do`.

        Args:
            rule: What must hold, with the file or key that it is about.
            got: The value received, where there is a single wrong value.
            do: What the user can do about it.
        """
        message = rule if got is _NO_VALUE else f"{rule}, got {got}"
        super().__init__(message if do is None else f"{message}; {do}")
        self.broken, self.do = message, do or ""

    def __str__(self) -> str:
        """Return the message on a single line, also where it quotes text of several lines."""
        return " ".join(super().__str__().split())


class NodeAwayError(MisError):
    """A node did not answer when a command began on it, and may in a minute: nothing of the input is at fault.

    A command ends with exit code 75, which is `os.EX_TEMPFAIL`: a job of SLURM is queued again.
    """


class WorkerError(Exception):
    """A worker of a training failed or was lost; the message names the worker. A command ends with exit code 1."""
