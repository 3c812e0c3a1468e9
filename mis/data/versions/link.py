"""A folder that lies elsewhere becomes the experiment's data set."""

from pathlib import Path

from mis.data.layouts.recognise import recognise
from mis.data.versions.root import RAW, check_name, use_folder
from mis.errors import MisError
from mis.settings import Settings


def link(folder: Path, settings: Settings) -> list[str]:
    """Put a link to a folder under data/raw and point data.root at it; a second time changes nothing.

    Args:
        folder: The data set's folder, in one of the layouts.
        settings: The machine.

    Returns:
        What was done, in lines for a person.

    Raises:
        MisError: There is no such folder, it is empty or no data set, or something else has its name under data/raw.
    """
    target = Path.cwd() / folder.expanduser()
    target = target.parent.resolve() / target.name if target.name not in ("", "..") else target.resolve()
    _check_folder(target)
    check_name(target.name)
    recognise(target)
    done = _put(settings.workspace / RAW / target.name, target)
    return [*done, use_folder(settings.workspace, target.name)]


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise MisError("a data set must exist to be linked", got=folder, do="copy or mount it there first")
    if not folder.is_dir():
        raise MisError(
            "what is linked must be a folder", got=folder, do="unpack an archive first, or import it by its URL"
        )
    try:
        empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise MisError(f"a data set must be readable: {error.strerror}", got=folder) from None
    if empty:
        raise MisError("a data set must not be empty", got=folder)


def _put(own: Path, target: Path) -> list[str]:
    """Make the link where there is none."""
    if own.parent.is_dir() and own.parent.resolve() == target.parent:
        return [f"{own} is there already"]
    if own.is_symlink() and own.readlink() == target:
        return [f"{own} -> {target} is there already"]
    if own.is_symlink() or own.exists():
        there = f"a link to {own.readlink()}" if own.is_symlink() else "a folder" if own.is_dir() else "a file"
        raise MisError(f"{own} must be free, or this link", got=there, do="remove it or give the folder another name")
    own.parent.mkdir(parents=True, exist_ok=True)
    own.symlink_to(target, target_is_directory=True)
    return [f"{own} -> {target}"]
