"""The sentences of the errors of a study, apart from what it computes: to mend one makes no search stale."""

from collections.abc import Sequence
from pathlib import Path

from mis.errors import MisError


def unknown_study(path: Path, known: Sequence[str]) -> MisError:
    """Return the error for a study that is not there, with the names of those that are."""
    return MisError(
        f"a study that goes on must be in {path.parent}",
        got=path.name,
        do=f"there is {', '.join(known) or 'none'}; a new study can begin from an ended one: tune.start.study",
    )


def other_version(study: Path) -> MisError:
    """Return the error for a study's file with parameters of another version."""
    return MisError(f"{study} has parameters that this version does not take", do="go on with the version of then")


def runs_already(name: str) -> MisError:
    """Return the error for a study that another process runs."""
    return MisError("a study must run once at a time", got=name, do="end its other process")


def bad_name(name: str) -> MisError:
    """Return the error for a name that cannot be a study's."""
    rule = "a study's name must begin with a letter or digit, and have letters, digits, '.', '-' and '_' alone"
    return MisError(rule, got=repr(name))


def name_taken(name: str, *, has_folder: bool) -> MisError:
    """Return the error for a name that another study has, or had before its folder was deleted."""
    if has_folder:
        return MisError("a new study must have a new name", got=name, do=f"go on with it: --resume {name}")
    return MisError("a new study must have a new name", got=f"{name}, of which MLflow has runs", do="choose another")


def needs_server(what: str) -> MisError:
    """Return the error for what must be read from MLflow, where a command runs without its server.

    Args:
        what: The parameter, or the option, that says so.
    """
    return MisError(f"{what} must be read from MLflow, which MIS_OFFLINE=1 does without", do="unset one of the two")
