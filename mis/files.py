"""Files and folders that are written whole or not at all, and stay after a loss of power; and locks.

A rename alone does not outlast a loss of power: the name may be on the disk before the content, which is then empty.
So what is written here is synced (fsync), then renamed, and then the folder is synced that has the name.
"""

import csv
import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mis.errors import MisError

REMOVED = ".removed"
"""Ending of the name of a folder that is being deleted; nobody finds it under its own name."""

NO_SPACE = ("No space left on device", "database or disk is full")
"""In the texts of errors of libraries that do not pass on the system's number; the second is SQLite's own."""


class DiskFullError(MisError):
    """A disk is full, or its quota used up; what was written before is as it was."""

    def __init__(self, folder: Path, way_on: str = "the same command") -> None:
        """Name the disk, and what goes on.

        Args:
            folder: A folder on the disk.
            way_on: The command that goes on when there is space.
        """
        super().__init__(
            f"there must be space on the disk of {folder}",
            got="none left",
            do=f"make space, and {way_on} goes on from what is there",
        )
        self.folder = folder
        self.way_on = way_on

    def __reduce__(self) -> tuple[type["DiskFullError"], tuple[Path, str]]:
        """Let another process have the error: a worker's comes to its driver."""
        return type(self), (self.folder, self.way_on)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that a disk is full or a quota used up."""
    if isinstance(error, DiskFullError):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(text in str(error) for text in NO_SPACE)


@contextmanager
def saying_disk_full(folder: Path) -> Iterator[None]:
    """Raise `DiskFullError` with the folder's name where the disk is full: the system's own error names no file."""
    try:
        yield
    except MisError:
        raise
    except Exception as error:  # of whatever library
        if not is_disk_full(error):
            raise
        name = getattr(error, "filename", None)
        raise DiskFullError(Path(name).parent if isinstance(name, str | Path) else folder) from error


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that they stay."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync(path.parent)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            sync(Path(root) / name)
        sync(Path(root))


@contextmanager
def exclusive_lock(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold the lock of a lock file during the block. The lock is released when the process ends, in whatever way.

    Args:
        path: The lock file. It is created and not removed.
        refusal: The exception that is raised where another process holds the lock.
    """
    make_folder(path.parent)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_folder(folder: Path, *, go_on: bool = False) -> Iterator[Path]:
    """Yield a folder that takes the place of `folder` if the block ends without an error.

    Until then, and after an error, `folder` is as it was.

    Args:
        folder: The path that the folder gets at the end of the block.
        go_on: Whether the yielded folder has the files of an earlier block that was killed or failed, and is kept if
            this block fails too. Otherwise the yielded folder is empty, and is removed if the block fails.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    outdated = folder.with_name(f".{folder.name}.outdated")
    if outdated.exists() and not folder.exists():
        outdated.rename(folder)  # a process was killed between the two renames below
    if not go_on:
        shutil.rmtree(unfinished, ignore_errors=True)
    make_folder(folder.parent)
    unfinished.mkdir(exist_ok=go_on)
    try:
        with saying_disk_full(folder.parent):
            yield unfinished
            _sync_tree(unfinished)
        shutil.rmtree(outdated, ignore_errors=True)
        if folder.exists():
            folder.rename(outdated)
        try:
            unfinished.rename(folder)
        except OSError:
            if outdated.exists():
                outdated.rename(folder)
            raise
        sync(folder.parent)
        shutil.rmtree(outdated, ignore_errors=True)
    finally:
        if not go_on:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write that takes the place of `path` if the block ends without an error.

    It has the same suffix as `path`, because Keras and matplotlib choose the format by the suffix.
    """
    unfinished = path.with_name(f".unfinished.{path.name}")
    try:
        with saying_disk_full(path.parent):
            make_folder(path.parent)
            yield unfinished
            sync(unfinished)
        unfinished.replace(path)
        sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def mark(path: Path) -> None:
    """Make an empty file, of which it counts that it is there."""
    with saying_disk_full(path.parent):
        make_folder(path.parent)
        path.touch()
        sync(path.parent)


def remove_file(path: Path) -> None:
    """Delete a file, so that it stays deleted; one that is not there changes nothing."""
    with suppress(FileNotFoundError):
        path.unlink()
        sync(path.parent)


def remove_folder(folder: Path) -> None:
    """Delete a folder: it is renamed first, so that no half of it is ever found under its name.

    What an earlier deletion that was killed has left beside it is deleted too. One that is not there changes nothing.
    """
    removed = folder.with_name(f".{folder.name}{REMOVED}")
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(removed)
        sync(folder.parent)
    shutil.rmtree(removed, ignore_errors=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON with a line for each value, for people to read and for git to compare."""
    with new_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: The file has something else, or no JSON.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must have a JSON object, got {type(content).__name__}")  # noqa: TRY004 - as from json
    return content


class NoTextError(ValueError):
    """A line of a file is no UTF-8.

    Attributes:
        line: The line's number among those that were read, from 1.
    """

    def __init__(self, path: Path, line: int) -> None:
        super().__init__(f"{path} must be UTF-8, got other bytes in line {line}")
        self.line = line


class LineLog:
    """A file of lines, one process' alone: lines that were appended are there after a loss of power, whole.

    Lines that are appended together are found together or not at all. What a process that was killed, or a full disk,
    has left of them at the end of the file is cut off before it is read or written again.

    Attributes:
        path: The file, which the first append makes.
    """

    _MORE = b" "
    """Stands at the end of a line where the next one belongs to it. To a reader of JSON it means nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size: int | None = None
        # What is found out about the file must not be noted down after another thread has written to it.
        self._guard = threading.RLock()

    def read(self) -> list[str]:
        """Return all lines, without their line breaks.

        Raises:
            NoTextError: A line is no UTF-8.
        """
        if not self.path.exists():
            return []
        return self._lines(self.path.read_bytes()[: self._end()])

    def read_from(self, position: int, most_bytes: int) -> tuple[list[str], int]:
        """Return some lines from a position on, without their line breaks, and the position after them.

        Another thread may append meanwhile.

        Args:
            position: The byte at which a line begins: 0, or what this method has returned before.
            most_bytes: How much is read; the last line is read to its end all the same.

        Raises:
            NoTextError: A line is no UTF-8.
        """
        length = min(self._end() - position, most_bytes)
        if length <= 0:
            return [], position
        with self.path.open("rb") as file:
            file.seek(position)
            content = file.read(length)
            content += b"" if content.endswith(b"\n") else file.readline()
        return self._lines(content), position + len(content)

    def _lines(self, content: bytes) -> list[str]:
        lines = []
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                lines.append(line.rstrip(self._MORE).decode())
            except UnicodeDecodeError:
                raise NoTextError(self.path, number) from None
        return lines

    def replace(self, lines: Sequence[str]) -> None:
        """Write these lines in place of all that are there.

        Raises:
            DiskFullError: The disk is full; the file is as it was.
        """
        content = b"".join(line.encode() + b"\n" for line in lines)
        with self._guard:
            self._size = None  # it is read again, should what follows break off
            with new_file(self.path) as unfinished:
                unfinished.write_bytes(content)
            self._size = len(content)

    def append(self, lines: Sequence[str]) -> None:
        """Append lines; when it returns, they are on the disk.

        Raises:
            DiskFullError: The disk is full; the file is as it was.
        """
        if not lines:
            return
        encoded = [line.encode() for line in lines]
        content = (self._MORE + b"\n").join(encoded) + b"\n"
        is_new = not self.path.exists()
        end = self._end()
        with saying_disk_full(self.path.parent):
            make_folder(self.path.parent)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.ftruncate(descriptor, end)
                os.lseek(descriptor, end, os.SEEK_SET)
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(descriptor, end)
                raise
            finally:
                os.close(descriptor)
            if is_new:
                sync(self.path.parent)
        self._size = end + len(content)

    def _end(self) -> int:
        """Return where the last group of lines ends that is whole."""
        with self._guard:
            if self._size is None:
                size = position = 0
                if self.path.exists():
                    for line in self.path.read_bytes().split(b"\n")[:-1]:
                        position += len(line) + 1
                        if not line.endswith(self._MORE):
                            size = position
                self._size = size
            return self._size


def _write_all(descriptor: int, content: bytes) -> None:
    """Write all of it: the system may write a part, before it says with the next call that the disk is full."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system has no hard links."""
    with new_file(target) as unfinished:
        unfinished.unlink(missing_ok=True)
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; `target` is written whole or not at all."""
    with new_file(target) as unfinished:
        shutil.copyfile(source, unfinished)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], header: Sequence[str] = ()) -> None:
    """Write rows under a header: the columns of `header`, then all other keys in the order of their appearance."""
    header = list(dict.fromkeys((*header, *(key for row in rows for key in row))))
    with new_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
