"""Unpack a tar file: members that are no plain file or folder, or that lead out of the folder, are refused."""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import IO

from isal import igzip
from isal.igzip_lib import IsalError
from tqdm import tqdm

from mis.errors import MisError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
GZIP_MAGIC = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20


class BrokenArchiveError(MisError):
    """The file is no tar file, or a part of one: another download may mend it."""


@dataclass(frozen=True)
class Unpacked:
    """How many files were unpacked.

    Attributes:
        files: The files that are in the folder.
        left_out: The files that were not unpacked because macOS had added them: `._*`, `.DS_Store`, `__MACOSX`.
    """

    files: int
    left_out: int


def unpack(archive: Path, folder: Path, *, progress: bool = True) -> Unpacked:
    """Unpack a tar file, which may be gzipped, into an empty folder.

    Where all of it lies in one top folder, the content of that folder is unpacked. Permissions, owners and times
    are not taken over. After an error the folder holds a part: the caller removes it.

    Args:
        archive: The file; whether it is gzipped is told by its content.
        folder: The folder to unpack to, which exists and is empty.
        progress: Whether to show a progress bar.

    Raises:
        BrokenArchiveError: It is no tar file, ends early or has no files.
        MisError: A member is a link or a device, leads out of the folder or is there twice, or the disk is full.
    """
    try:
        with _opened(archive) as (raw, content):
            unpacked = _extract(archive, raw, content, folder, progress)
            _check_end(archive, content)
    # isal's stub has its exception class as an instance.
    except (tarfile.TarError, EOFError, zlib.error, IsalError, gzip.BadGzipFile) as error:  # type: ignore[misc]
        raise BrokenArchiveError(f"{archive.name} must be a whole tar file: {error}") from None
    except OSError as error:
        raise MisError(f"{archive.name} must be unpacked to {folder.parent}: {error.strerror or error}") from None
    if not unpacked.files:
        raise BrokenArchiveError(f"{archive.name} must hold files", got="none")
    _leave_out_single_top(folder)
    return unpacked


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield the file, whose position is the progress, and its content without compression."""
    with archive.open("rb") as raw:
        gzipped = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        if not gzipped:
            yield raw, raw
            return
        # Several times as fast as gzip; isal annotates its parts in C alone.
        with igzip.open(raw, "rb") as content:  # type: ignore[no-untyped-call]
            yield raw, content


def _extract(archive: Path, raw: IO[bytes], content: IO[bytes], folder: Path, progress: bool) -> Unpacked:
    files = left_out = 0
    with (
        tarfile.open(fileobj=content, mode="r:") as members,
        tqdm(total=archive.stat().st_size, desc="unpack", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        for member in members:
            bar.update(raw.tell() - bar.n)
            name = PurePosixPath(member.name)
            if _is_of_macos(name):
                left_out += not member.isdir()
                continue
            _check_member(archive, member)
            try:
                files += _write(members, member, folder / name)
            except ValueError as error:
                rule = f"{archive.name}: each name must be one that a file can have: {error}"
                raise MisError(rule, got=repr(member.name), do="nothing was unpacked") from None
            except (FileExistsError, NotADirectoryError):
                rule = f"{archive.name} must have each name once"
                raise MisError(rule, got=repr(member.name), do="nothing was unpacked") from None
        bar.update(bar.total - bar.n)
        # A header that tarfile cannot read looks to it like the end: `_check_end` tells them apart from here on.
        content.seek(members.offset)
    return Unpacked(files, left_out)


def _is_of_macos(name: PurePosixPath) -> bool:
    return any(part in ("__MACOSX", ".DS_Store") or part.startswith("._") for part in name.parts)


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    """Check that a member is a file or folder within the archive's folder.

    tarfile's own filter for data allows links; and Python 3.11.2, which Debian 12 has, is without it.
    """
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        rule = f"{archive.name}: what it holds must stay in its folder"
        raise MisError(rule, got=repr(member.name), do="nothing was unpacked")
    if not (member.isreg() or member.isdir()):
        kind = "a symbolic link" if member.issym() else "a hard link" if member.islnk() else "a device or the like"
        rule = f"{archive.name} must hold files and folders alone"
        raise MisError(rule, got=f"{kind}, {member.name!r}", do="nothing was unpacked")


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> bool:
    """Make a member's file or folder, without permissions, owner and times; return whether it is a file."""
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    source = members.extractfile(member)
    assert source is not None, "a regular file has content"  # noqa: S101 - for mypy
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, CHUNK_BYTES)
    return True


def _check_end(archive: Path, content: IO[bytes]) -> None:
    """Check that the archive ends with the block of zeros that tar writes, and with the checksum of gzip."""
    if content.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise BrokenArchiveError(f"{archive.name} must be a whole tar file: it ends early, or is damaged in the middle")
    while content.read(CHUNK_BYTES):  # the checksum at the end of a gzipped file is compared when it is reached
        pass


def _leave_out_single_top(folder: Path) -> None:
    """Where a folder holds one folder and nothing else, put the content of that one in its place."""
    tops = list(folder.iterdir())
    if len(tops) != 1 or not tops[0].is_dir():
        return
    top = tops[0].rename(folder / f".{token_hex(8)}")  # something in it may have the same name
    for path in list(top.iterdir()):
        path.rename(folder / path.name)
    top.rmdir()
