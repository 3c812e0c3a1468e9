"""The errors that a command shows without a traceback."""

_NOTHING = object()


class MisError(Exception):
    """Bad input, in one line: the rule, the value received and what to do.

    A command prints it without a traceback and ends with exit code 2 (`mis.cli`). Anything else
    that is raised is a defect of `mis` and keeps its traceback.
    """

    def __init__(self, rule: str, *, got: object = _NOTHING, do: str | None = None) -> None:
        """Join the parts to `rule, got value; do`.

        Args:
            rule: What must hold, with the file or key that it is about.
            got: The value received, where one value is to blame.
            do: What the user can do about it.
        """
        message = rule if got is _NOTHING else f"{rule}, got {got}"
        super().__init__(message if do is None else f"{message}; {do}")

    def __str__(self) -> str:
        """Return the message on one line, whatever was quoted in it."""
        return " ".join(super().__str__().split())


class WorkerError(Exception):
    """A worker of a training failed or was lost; the message names the worker. A command ends with exit code 1."""
