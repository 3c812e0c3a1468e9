"""What `storage.path` and `storage.stage_to` name."""

import os
import re
import stat
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mis.params.storage import StorageParams
from mis.settings import Settings
from mis.storage import messages
from mis.storage.remote import RemoteFolder

S3 = "s3://"
CHECKPOINTS = "checkpoints"
"""The folder in which checkpoints and studies are kept."""

URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]*[a-z0-9](/[\w.=+,() -]+)*/?")


def check_path(text: str) -> str:
    """Return `storage.path` as it is kept: without a slash at its end.

    Raises:
        MisError: It is of another kind, or may have a password.
    """
    if text.startswith(S3):
        if not URL.fullmatch(text) or ".." in text:
            raise messages.credentials_in_path()
        return text.rstrip("/")
    if "://" in text or text.startswith("s3:"):
        raise messages.bad_path(text.partition("://")[0] + "://...")
    return text


def with_storage(settings: Settings, params: StorageParams) -> Settings:
    """Return the settings with the storage that params.yaml names.

    Raises:
        MisError: It is of a kind that is not known, has a variable that is not set, or is a folder that does not exist;
            or `storage.stage_to` is relative.
    """
    path = None if params.path is None else check_path(params.path)
    if path is not None and not path.startswith(S3):
        folder = folder_of(path, settings.root)
        if not folder.is_dir():
            raise messages.not_a_folder(str(folder))
        path = str(folder)
    if params.stage_to is not None and not params.stage_to.startswith(("/", "~", "$")):
        raise messages.relative_stage_to(params.stage_to)
    return replace(settings, storage=path, stage_to=params.stage_to, storage_wait_s=params.wait_s)


def remote_folder(settings: Settings, folder: Path) -> RemoteFolder | None:
    """Return where a folder of the project's checkpoints is kept on a server; None where that is the folder itself."""
    if not settings.is_remote:
        return None
    name = folder.relative_to(settings.checkpoints.parent).as_posix()
    return RemoteFolder(f"{settings.storage}/{name}", settings.storage_wait_s)


def storage_of(url: str) -> str:
    """Return the `storage.path` in which something of a project's checkpoints is kept.

    >>> storage_of("s3://bucket/project/checkpoints/tune/mine")
    's3://bucket/project'
    """
    return url.rpartition(f"/{CHECKPOINTS}/")[0]


def folder_of(text: str, root: Path) -> Path:
    """Return the folder that `storage.path` names on this machine: `~` and `$NAME` stand for what they do.

    Args:
        text: The path.
        root: What a relative one starts at.

    Raises:
        MisError: A variable is not set.
    """
    return root / _expanded(text, "storage.path")


def stage_folder(text: str) -> Path:
    """Return the folder that `storage.stage_to` names on this node: `~` and `$NAME` stand for what they do here.

    Raises:
        MisError: A variable is not set, or the path is not absolute.
    """
    folder = _expanded(text, "storage.stage_to")
    if not folder.is_absolute():
        raise messages.relative_stage_to(f"{text}, which is {folder}")
    return folder


def _expanded(text: str, key: str) -> Path:
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise messages.unset_variable(key, text)
    return Path(os.path.expanduser(expanded))  # noqa: PTH111 - it leaves `~` of a user that there is not


def scratch_folder() -> Path:
    """Return this user's folder on this machine's own disk for what is on its way from the storage, or to it.

    Raises:
        MisError: As `private_folder`.
    """
    return private_folder(Path(tempfile.gettempdir()) / f"mis-storage-{os.getuid()}")


def private_folder(folder: Path) -> Path:
    """Make a folder that no other user can read or write, in one that others may write to; return it.

    Its name can be guessed: who makes it first could read what is put there, or put something else there.

    Args:
        folder: The folder. The one that it is in exists.

    Raises:
        MisError: It is there, and is a link, another user's, or others may read or write it.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise messages.not_private(folder, "a link, or a file")
    if found.st_uid != os.getuid():
        raise messages.not_private(folder, f"one of the user {found.st_uid}")
    if found.st_mode & 0o077:
        raise messages.not_private(folder, f"one with the permissions {stat.S_IMODE(found.st_mode):o}")
    return folder
