"""DVC's hash of a file or a folder as it is now."""

from pathlib import Path

from mis.errors import MisError


def content_hash(workspace: Path, path: str) -> str | None:
    """Return the MD5 that DVC has for a file, or for a folder, which ends in `.dir`; None where the path is missing.

    Files that DVC has hashed before, and that have not changed since, are not read again.

    Args:
        workspace: The folder of dvc.yaml.
        path: The file or folder, relative to the workspace or absolute; may be a link.

    Raises:
        MisError: A file cannot be read, or the folder is no DVC repository.
    """
    if not (workspace / path).exists():
        return None
    # Late: importing DVC takes half a second.
    from dvc.exceptions import DvcException
    from dvc.fs import localfs
    from dvc.repo import Repo
    from dvc_data.hashfile.build import build

    try:
        with Repo(str(workspace)) as repo:
            _, _, content = build(
                repo.cache.local, str(workspace / path), localfs, "md5", dry_run=True, ignore=repo.dvcignore
            )
    except (DvcException, OSError) as error:
        raise MisError(f"DVC must be able to read {path}: {error}") from None
    return None if content.hash_info is None else content.hash_info.value
