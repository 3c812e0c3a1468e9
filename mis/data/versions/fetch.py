"""`python -m mis.data import`: a published archive becomes the project's data set, under DVC's control."""

import logging
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mis.data.versions.archive import SUFFIXES, BrokenArchiveError, unpack
from mis.data.versions.hashing import content_hash
from mis.data.versions.root import RAW, check_name, use_folder
from mis.errors import MisError
from mis.files import exclusive_lock, new_folder
from mis.settings import Settings

STALLED_S = 60.0
"""Seconds after which DVC gives up a download that has stalled: an older unfinished file is of a killed download."""


@dataclass(frozen=True)
class ImportPaths:
    """The paths of an imported data set.

    Attributes:
        workspace: The project's folder.
        archive: The file as it was downloaded.
        folder: The data set's folder.
    """

    workspace: Path
    archive: Path
    folder: Path

    @classmethod
    def of(cls, url: str, workspace: Path) -> "ImportPaths":
        """Return the paths of the archive of a URL.

        Raises:
            MisError: It is not the URL of a tar file, or its name cannot be a data set's.
        """
        parts = urlsplit(url)
        name = unquote(parts.path).rpartition("/")[2]
        suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
        if not (parts.scheme and parts.netloc):
            raise MisError(
                "import takes a URL with its scheme, e.g. https://", got=url, do="link a folder that is on this machine"
            )
        if parts.password:
            rule = "a URL to import must be without a password, because it is committed"
            raise MisError(rule, do="keep it in DVC's configuration: `dvc remote modify --local`")
        if suffix is None:
            raise MisError(f"a URL to import must end in {', '.join(SUFFIXES)}", got=url)
        check_name(name.removesuffix(suffix))
        raw = workspace / RAW
        return cls(workspace, raw / name, raw / name.removesuffix(suffix))

    @property
    def pointer(self) -> Path:
        """DVC's file beside the archive, `<archive>.dvc`, which git keeps."""
        return self.archive.with_name(f"{self.archive.name}.dvc")

    @property
    def begun(self) -> Path:
        """The file that exists until the archive has been unpacked once: until then the archive may be removed."""
        return self.archive.with_name(f".{self.archive.name}.begun")

    @property
    def origin(self) -> Path:
        """The file with the MD5 of the archive that the folder was unpacked from."""
        return self.folder.with_name(f".{self.folder.name}.unpacked")

    def md5(self) -> str | None:
        """Return the archive's MD5 that is noted in its pointer; None where there is none."""
        return _entry(self.pointer, "outs").get("md5")


def import_archive(url: str, settings: Settings, *, progress: bool = True) -> list[str]:
    """Download a tar file with DVC, unpack it, and set data.root to its folder; what is done already is not repeated.

    Args:
        url: A URL of a kind that DVC reads: https, s3, ssh, ...; ends in .tar, .tar.gz or .tgz.
        settings: The machine.
        progress: Whether to show a progress bar while unpacking.

    Returns:
        What was done, in lines to print.

    Raises:
        MisError: There is nothing to download, the download breaks off or is no tar file, the archive has a member
            that is refused, or something else has the path. What was there before is then as it was.
    """
    paths = ImportPaths.of(url, settings.workspace)
    paths.archive.parent.mkdir(parents=True, exist_ok=True)
    running = MisError(f"{paths.archive.name} must not be imported twice at once", do="wait for the other process")
    with exclusive_lock(paths.archive.with_name(".import.lock"), running):
        _check_free(paths, url)
        done = _ensure_archive(paths, url)
        done += _ensure_folder(paths, progress)
        paths.begun.unlink(missing_ok=True)
    return [*done, use_folder(settings.workspace, paths.folder.name)]


def _check_free(paths: ImportPaths, url: str) -> None:
    """Check, before anything is downloaded, that no file or folder of the user has one of the paths."""
    if paths.pointer.exists() and (known := _entry(paths.pointer, "deps").get("path")) != url:
        rule = f"{paths.pointer} must be free, or the same URL's"
        raise MisError(rule, got=f"that of {known}", do="remove it to import another file in its place")
    if paths.archive.exists() and not paths.pointer.exists() and not paths.begun.exists():
        raise MisError(f"{paths.archive} must be free, or DVC's", got="a file of yours", do="move it away")
    if paths.folder.is_symlink() or (paths.folder.exists() and not paths.origin.exists()):
        found = "a link" if paths.folder.is_symlink() else "one of another origin"
        raise MisError(f"{paths.folder} must be free, or unpacked from this archive", got=found, do="move it away")


def _ensure_archive(paths: ImportPaths, url: str) -> list[str]:
    """Get the archive that DVC's pointer names: from DVC's cache, its remote or the URL. Return what was done."""
    known = paths.md5()
    if known is None:
        _discard(paths)
        paths.begun.touch()
        try:
            _download(paths, url)
        finally:
            if not paths.archive.exists():
                _discard(paths)
        return [f"{paths.archive}: downloaded"]
    if content_hash(paths.workspace, str(paths.archive)) == known:
        return [f"{paths.archive} is there already"]
    if _from_dvc(paths) and content_hash(paths.workspace, str(paths.archive)) == known:
        return [f"{paths.archive}: from DVC's cache or remote"]
    text = paths.pointer.read_bytes()
    try:
        _download(paths, url)
    finally:
        found = paths.md5()
        paths.pointer.write_bytes(text)  # DVC has written it anew: in another order, or of another archive
    if found != known:
        paths.archive.unlink(missing_ok=True)
        rule = f"{url} must still have the file that {paths.pointer.name} names"
        raise MisError(
            rule, got=f"another one, MD5 {found}", do=f"get the old one with `dvc pull`, or remove {paths.pointer}"
        )
    return [f"{paths.archive}: downloaded, the same that {paths.pointer.name} names"]


def _download(paths: ImportPaths, url: str) -> None:
    """Download the archive with DVC, and check its length."""
    print(f"downloading {url}", file=sys.stderr)  # noqa: T201 - it takes a while
    try:
        with _repository(paths) as repo:
            repo.imp_url(url, out=str(paths.archive), force=True)
    finally:
        _remove_unfinished(paths.archive.parent)
    expected, received = (_entry(paths.pointer, kind).get("size") for kind in ("deps", "outs"))
    # Where the server's answer has a length, DVC itself notices a download that breaks off.
    if expected is not None and received != expected:
        _discard(paths)
        raise MisError(
            f"{url} must come whole", got=f"{received} of {expected} bytes", do="give the same command again"
        )


def _from_dvc(paths: ImportPaths) -> bool:
    """Get the archive from DVC's cache or its default remote; return whether it was there."""
    paths.archive.unlink(missing_ok=True)
    try:
        with _repository(paths) as repo:
            take = repo.pull if repo.config["core"].get("remote") else repo.checkout
            take(targets=[str(paths.pointer)])
    except MisError:  # no copy, or the remote cannot be reached: the URL remains
        return False
    return paths.archive.exists()


@contextmanager
def _repository(paths: ImportPaths) -> Iterator[Any]:
    """Yield DVC's repository; an error of DVC becomes a MisError of one line."""
    from dvc.dependency.base import DependencyDoesNotExistError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)  # its advice on what to do next does not fit here
    try:
        with Repo(str(paths.workspace)) as repo:
            yield repo
    except DependencyDoesNotExistError as error:
        url = str(error).split("'")[1]
        raise MisError("there must be something to download", got=f"nothing at {url}{_reason(url)}") from None
    except Exception as error:  # each kind of URL brings a library with errors of its own
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        rule = f"DVC must be able to import {paths.archive.name}"
        raise MisError(rule, got=line, do="give the same command again, or see `dvc doctor`") from error


def _reason(url: str) -> str:
    """Return why there is nothing at a URL, which DVC does not say; "" where that cannot be found out."""
    if urlsplit(url).scheme not in ("http", "https"):
        return ""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):  # noqa: S310 - http alone
            return ""
    except urllib.error.HTTPError as error:
        return f" ({error.code} {error.reason})"
    except (OSError, ValueError) as error:
        return f" ({getattr(error, 'reason', error)})"


def _ensure_folder(paths: ImportPaths, progress: bool) -> list[str]:
    """Unpack the archive where its folder is missing, and return what was done."""
    md5 = paths.md5()
    assert md5 is not None, "the archive is there"  # noqa: S101 - for mypy
    if paths.folder.exists():
        if paths.origin.read_text(encoding="utf-8") != md5:
            rule = f"{paths.folder} must be free, or unpacked from this archive"
            raise MisError(rule, got="what was unpacked from an earlier one", do="remove it")
        return [f"{paths.folder} is there already"]
    try:
        with new_folder(paths.folder) as unfinished:
            unpacked = unpack(paths.archive, unfinished, progress=progress)
            paths.origin.write_text(md5, encoding="utf-8")
    except BrokenArchiveError:
        if paths.begun.exists():  # it has never been unpacked: another download may be whole
            _discard(paths)
        raise
    left_out = f"; {unpacked.left_out} that macOS had added were left out" if unpacked.left_out else ""
    return [f"{paths.folder}: {unpacked.files} files unpacked{left_out}"]


def _discard(paths: ImportPaths) -> None:
    """Remove the archive and its pointer, so that the same command downloads it anew."""
    paths.archive.unlink(missing_ok=True)
    paths.pointer.unlink(missing_ok=True)
    paths.begun.unlink(missing_ok=True)


def _remove_unfinished(folder: Path) -> None:
    """Remove the files of killed downloads of DVC: hidden, with random names, and not written to for a while."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\.[\w-]{22}\.tmp", path.name) and time.time() - path.stat().st_mtime > STALLED_S:
            path.unlink(missing_ok=True)


def _entry(pointer: Path, kind: str) -> dict[str, Any]:
    """Return the first entry of `deps` or `outs` in DVC's pointer, empty where there is none."""
    try:
        tree = YAML(typ="safe").load(pointer.read_text(encoding="utf-8"))
        return dict(tree[kind][0])
    except (OSError, YAMLError, KeyError, IndexError, TypeError, ValueError):
        return {}
