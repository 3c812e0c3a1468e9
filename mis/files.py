"""Files and folders that are written whole or not at all, and locks."""

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


@contextmanager
def exclusive_lock(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold the lock of a lock file during the block. The lock is released when the process ends, in whatever way.

    Args:
        path: The lock file. It is created and not removed.
        refusal: The exception that is raised where another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
    unfinished.mkdir(parents=True, exist_ok=go_on)
    try:
        yield unfinished
        shutil.rmtree(outdated, ignore_errors=True)
        if folder.exists():
            folder.rename(outdated)
        try:
            unfinished.rename(folder)
        except OSError:
            if outdated.exists():
                outdated.rename(folder)
            raise
        shutil.rmtree(outdated, ignore_errors=True)
    finally:
        if not go_on:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write that takes the place of `path` if the block ends without an error.

    It has the same suffix as `path`, because Keras and matplotlib choose the format by the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished.{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON with a line for each value, for people to read and for git to compare."""
    with new_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


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
