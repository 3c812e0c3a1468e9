"""An archive that is published somewhere becomes the experiment's data set, under DVC's control."""

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
"""DVC gives a download up that has brought nothing for so long: an unfinished file that is older is a killed one's."""


@dataclass(frozen=True)
class Place:
    """Where an imported data set lies.

    Attributes:
        workspace: The project's folder.
        archive: The file as it was downloaded.
        folder: The data set's folder.
    """

    workspace: Path
    archive: Path
    folder: Path

    @classmethod
    def of(cls, url: str, workspace: Path) -> "Place":
        """Return where a URL's archive goes.

        Raises:
            MisError: It is no URL of a tar file, or its name cannot be a data set's.
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
        """DVC's file beside the archive, which git keeps."""
        return self.archive.with_name(f"{self.archive.name}.dvc")

    @property
    def begun(self) -> Path:
        """Is there while the archive has not been unpacked once, so that it may be removed."""
        return self.archive.with_name(f".{self.archive.name}.begun")

    @property
    def origin(self) -> Path:
        """Has the MD5 of the archive from which the folder was unpacked."""
        return self.folder.with_name(f".{self.folder.name}.unpacked")

    def md5(self) -> str | None:
        """Return the archive's MD5 as its pointer has it; None where there is none."""
        return _entry(self.pointer, "outs").get("md5")


def import_archive(url: str, settings: Settings, *, progress: bool = True) -> list[str]:
    """Download a tar file with DVC, unpack it, and point data.root at the folder; what is there stays.

    Args:
        url: Of a kind that DVC reads: https, s3, ssh, ...; ends in .tar, .tar.gz or .tgz.
        settings: The machine.
        progress: Show a progress bar while unpacking.

    Returns:
        What was done, in lines for a person.

    Raises:
        MisError: There is nothing to download, it breaks off or is no tar file, the archive holds what it must not,
            or something else is where it should go. What then is there is what there was before.
    """
    place = Place.of(url, settings.workspace)
    place.archive.parent.mkdir(parents=True, exist_ok=True)
    running = MisError(f"{place.archive.name} must not be imported twice at once", do="wait for the other process")
    with exclusive_lock(place.archive.with_name(".import.lock"), running):
        _check_free(place, url)
        done = _have_archive(place, url)
        done += _have_folder(place, progress)
        place.begun.unlink(missing_ok=True)
    return [*done, use_folder(settings.workspace, place.folder.name)]


def _check_free(place: Place, url: str) -> None:
    """Check that nothing of the user's is in the way, before anything is downloaded."""
    if place.pointer.exists() and (known := _entry(place.pointer, "deps").get("path")) != url:
        rule = f"{place.pointer} must be free, or the same URL's"
        raise MisError(rule, got=f"that of {known}", do="remove it to import another file in its place")
    if place.archive.exists() and not place.pointer.exists() and not place.begun.exists():
        raise MisError(f"{place.archive} must be free, or DVC's", got="a file of yours", do="move it away")
    if place.folder.is_symlink() or (place.folder.exists() and not place.origin.exists()):
        there = "a link" if place.folder.is_symlink() else "one of another origin"
        raise MisError(f"{place.folder} must be free, or unpacked from this archive", got=there, do="move it away")


def _have_archive(place: Place, url: str) -> list[str]:
    """See to it that the archive is there as DVC's pointer has it: from DVC's cache, its remote, or the URL."""
    known = place.md5()
    if known is None:
        _discard(place)
        place.begun.touch()
        try:
            _download(place, url)
        finally:
            if not place.archive.exists():
                _discard(place)
        return [f"{place.archive}: downloaded"]
    if content_hash(place.workspace, str(place.archive)) == known:
        return [f"{place.archive} is there already"]
    if _from_dvc(place) and content_hash(place.workspace, str(place.archive)) == known:
        return [f"{place.archive}: from DVC's cache or remote"]
    text = place.pointer.read_bytes()
    try:
        _download(place, url)
    finally:
        found = place.md5()
        place.pointer.write_bytes(text)  # DVC writes the same in another order, or what must not be
    if found != known:
        place.archive.unlink(missing_ok=True)
        rule = f"{url} must still have the file that {place.pointer.name} names"
        raise MisError(
            rule, got=f"another one, MD5 {found}", do=f"get the old one with `dvc pull`, or remove {place.pointer}"
        )
    return [f"{place.archive}: downloaded, the same that {place.pointer.name} names"]


def _download(place: Place, url: str) -> None:
    """Let DVC download the archive into its cache, and check that all of it came."""
    print(f"downloading {url}", file=sys.stderr)  # noqa: T201 - it takes a while
    try:
        with _repository(place) as repo:
            repo.imp_url(url, out=str(place.archive), force=True)
    finally:
        _remove_unfinished(place.archive.parent)
    expected, came = (_entry(place.pointer, kind).get("size") for kind in ("deps", "outs"))
    # DVC notices it itself where the answer says how long it is.
    if expected is not None and came != expected:
        _discard(place)
        raise MisError(f"{url} must come whole", got=f"{came} of {expected} bytes", do="give the same command again")


def _from_dvc(place: Place) -> bool:
    """Take the archive from DVC's cache or its default remote; return whether it is there."""
    place.archive.unlink(missing_ok=True)
    try:
        with _repository(place) as repo:
            take = repo.pull if repo.config["core"].get("remote") else repo.checkout
            take(targets=[str(place.pointer)])
    except MisError:  # it has no copy, or there is no way to its remote: the URL is left
        return False
    return place.archive.exists()


@contextmanager
def _repository(place: Place) -> Iterator[Any]:
    """Yield DVC's repository; what fails in it is said in one line."""
    from dvc.dependency.base import DependencyDoesNotExistError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)  # it says what to do next, which here depends on more
    try:
        with Repo(str(place.workspace)) as repo:
            yield repo
    except DependencyDoesNotExistError as error:
        url = str(error).split("'")[1]
        raise MisError("there must be something to download", got=f"nothing at {url}{_reason(url)}") from None
    except Exception as error:  # each kind of URL brings a library with errors of its own
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        rule = f"DVC must be able to import {place.archive.name}"
        raise MisError(rule, got=line, do="give the same command again, or see `dvc doctor`") from error


def _reason(url: str) -> str:
    """Return why there is nothing at a URL, which DVC does not say; "" where that cannot be known."""
    if urlsplit(url).scheme not in ("http", "https"):
        return ""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):  # noqa: S310 - http alone
            return ""
    except urllib.error.HTTPError as error:
        return f" ({error.code} {error.reason})"
    except (OSError, ValueError) as error:
        return f" ({getattr(error, 'reason', error)})"


def _have_folder(place: Place, progress: bool) -> list[str]:
    """See to it that the folder is there as the archive has it."""
    md5 = place.md5()
    assert md5 is not None, "the archive is there"  # noqa: S101 - for mypy
    if place.folder.exists():
        if place.origin.read_text(encoding="utf-8") != md5:
            rule = f"{place.folder} must be free, or unpacked from this archive"
            raise MisError(rule, got="what was unpacked from an earlier one", do="remove it")
        return [f"{place.folder} is there already"]
    try:
        with new_folder(place.folder) as unfinished:
            unpacked = unpack(place.archive, unfinished, progress=progress)
            place.origin.write_text(md5, encoding="utf-8")
    except BrokenArchiveError:
        if place.begun.exists():  # it has never been good for anything
            _discard(place)
        raise
    left_out = f"; {unpacked.left_out} that macOS had added were left out" if unpacked.left_out else ""
    return [f"{place.folder}: {unpacked.files} files unpacked{left_out}"]


def _discard(place: Place) -> None:
    """Remove what a download left, so that the same command begins anew."""
    place.archive.unlink(missing_ok=True)
    place.pointer.unlink(missing_ok=True)
    place.begun.unlink(missing_ok=True)


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed downloads of DVC left: hidden files with random names."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\.[\w-]{22}\.tmp", path.name) and time.time() - path.stat().st_mtime > STALLED_S:
            path.unlink(missing_ok=True)


def _entry(pointer: Path, kind: str) -> dict[str, Any]:
    """Return the first entry of `deps` or `outs` of DVC's pointer, empty where there is none."""
    try:
        tree = YAML(typ="safe").load(pointer.read_text(encoding="utf-8"))
        return dict(tree[kind][0])
    except (OSError, YAMLError, KeyError, IndexError, TypeError, ValueError):
        return {}
