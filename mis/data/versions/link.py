"""`python -m mis.data link`: a folder elsewhere becomes the project's data set."""

from pathlib import Path

from mis.data.layouts.recognise import recognise
from mis.data.versions.root import RAW, check_name, use_folder
from mis.errors import MisError
from mis.settings import Settings


def link(folder: Path, settings: Settings) -> list[str]:
    """Make a link in data/raw to a folder, and set data.root to it; a second call changes nothing.

    Args:
        folder: The data set's folder, in one of the layouts.
        settings: The machine.

    Returns:
        What was done, in lines to print.

    Raises:
        MisError: The folder is missing, empty or no data set, or something else has its name in data/raw.
    """
    target = Path.cwd() / folder.expanduser()
    target = target.parent.resolve() / target.name if target.name not in ("", "..") else target.resolve()
    _check_folder(target)
    check_name(target.name)
    recognise(target)
    done = _make_link(settings.workspace / RAW / target.name, target)
    return [done, use_folder(settings.workspace, target.name)]


def _check_folder(folder: Path) -> None:
    """Check that there is a folder, that it can be read, and that it is not empty."""
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


def _make_link(link: Path, target: Path) -> str:
    """Make the link where it is missing, and return what was done."""
    if link.parent.is_dir() and link.parent.resolve() == target.parent:
        return f"{link} is there already"
    if link.is_symlink() and link.readlink() == target:
        return f"{link} -> {target} is there already"
    if link.is_symlink() or link.exists():
        found = f"a link to {link.readlink()}" if link.is_symlink() else "a folder" if link.is_dir() else "a file"
        raise MisError(f"{link} must be free, or this link", got=found, do="remove it or give the folder another name")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target, target_is_directory=True)
    return f"{link} -> {target}"
