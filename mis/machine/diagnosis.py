"""What is said of a machine, a node or a store that a training needs: a mark, what was found, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mis.errors import MisError

Mark = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Diagnosis:
    """What is said of one thing.

    Attributes:
        mark: `error` where trainings or searches fail, or compute something else than they seem to; `warning` where
            they may be slow or fail later.
        about: The thing, as `versions` or `checkpoints`.
        found: What was found, in one line; it names the host where there are several.
        do: What to do about it; "" where all is well.
    """

    mark: Mark
    about: str
    found: str
    do: str = ""

    def line(self) -> str:
        """Return all of it in one line."""
        return f"{self.about}: {self.found}" + (f"; {self.do}" if self.do else "")


def refusal(rule: str, errors: Sequence[Diagnosis], kind: type[MisError] = MisError) -> MisError:
    """Return the error for nodes on which nothing may be started.

    Args:
        rule: What must hold.
        errors: What was found instead, at least one.
        kind: The class of the error.
    """
    found = ", ".join(error.found for error in errors)
    return kind(rule, got=found, do="; ".join(dict.fromkeys(error.do for error in errors)))
