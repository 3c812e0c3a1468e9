"""What a disk may have after a loss of power: every state that the writes of a program allow.

A file's content is on the disk once it was synced (fsync); before, any part of it may be there, or nothing. A name is
on the disk once its folder was synced; before, any first part of the changes of names may be there. Nothing more is
assumed: not that names wait for contents, as some file systems do.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Names = dict[tuple[int, str], int]
"""The number of a file or folder by the number of the folder that it is in, and its name there."""

CHANGES = ("rename", "replace", "unlink", "rmdir", "mkdir", "link", "remove")
"""Functions of `os` that change names."""


class Disk:
    """Looks on while a program writes below a folder.

    Attributes:
        root: The folder.
        states: Every state that a loss of power may have left so far: contents by path, None for a folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.states: dict[frozenset[tuple[str, bytes | None]], None] = {}
        self._numbers: dict[int, int] = {}  # by the system's, which is given again when a file is deleted
        self._counted = itertools.count()
        self._root = self._number_of(root)
        self._now: Names = {}
        self._folders: set[int] = {self._root}
        self._contents: dict[int, bytes] = {}
        self._synced: dict[int, bytes] = {}
        self._possible: list[Names] = [{}]

    def look(self) -> None:
        """Note what has changed, and which states a loss of power may leave now."""
        names, contents = self._read()
        if names != self._now:
            self._possible.append(names)
        self._now, self._contents = names, self._contents | contents
        for possible in self._possible:
            for part in (0.0, 0.5, 1.0):
                state: dict[str, bytes | None] = {}
                self._fill(state, possible, part, self._root, "")
                self.states.setdefault(frozenset(state.items()))

    def synced(self, path: Path) -> None:
        """Note that a file's content, or a folder's names, are on the disk."""
        self.look()
        if not path.is_relative_to(self.root):
            return
        number = self._number_of(path)
        if path.is_dir():
            now = {key: value for key, value in self._now.items() if key[0] == number}
            others = [
                {key: value for key, value in names.items() if key[0] != number} | now for names in self._possible
            ]
            self._possible = [names for place, names in enumerate(others) if names not in others[:place]]
        else:
            self._synced[number] = self._contents[number]
        self.look()

    def _read(self) -> tuple[Names, dict[int, bytes]]:
        paths = [self.root, *self.root.rglob("*")]
        there = {path.stat().st_ino for path in paths}
        self._numbers = {number: ours for number, ours in self._numbers.items() if number in there}
        names: Names = {}
        contents: dict[int, bytes] = {}
        for path in paths[1:]:
            number = names[self._number_of(path.parent), path.name] = self._number_of(path)
            if path.is_dir():
                self._folders.add(number)
            else:
                contents[number] = path.read_bytes()
        return names, contents

    def _number_of(self, path: Path) -> int:
        number = path.stat().st_ino
        if number not in self._numbers:
            self._numbers[number] = next(self._counted)
        return self._numbers[number]

    def _fill(self, state: dict[str, bytes | None], names: Names, part: float, folder: int, prefix: str) -> None:
        """Add what is in a folder to a state."""
        for (where, name), number in names.items():
            if where != folder:
                continue
            if number in self._folders:
                state[prefix + name] = None
                self._fill(state, names, part, number, f"{prefix}{name}/")
                continue
            synced = self._synced.get(number, b"")
            written = self._contents[number]
            if written.startswith(synced):
                state[prefix + name] = synced + written[len(synced) :][: round(part * (len(written) - len(synced)))]
            else:
                state[prefix + name] = synced if part == 0.0 else written[: round(part * len(written))]

    def restore(self, folder: Path) -> Iterator[None]:
        """Write each state into a folder in turn, which is emptied before."""
        for state in self.states:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name, content in sorted(state, key=lambda entry: (entry[0].count("/"), entry[0])):
                path = folder / name
                if content is None:
                    path.mkdir(exist_ok=True)
                else:
                    path.write_bytes(content)
            yield


@contextmanager
def watched(root: Path) -> Iterator[Disk]:
    """Look on while the block writes below a folder."""
    disk = Disk(root)

    def looking(change: Callable[..., object]) -> Callable[..., object]:
        def changing(*arguments: object, **options: object) -> object:
            disk.look()
            done = change(*arguments, **options)
            disk.look()
            return done

        return changing

    fsync = os.fsync

    def syncing(descriptor: int) -> None:
        fsync(descriptor)
        disk.synced(Path(f"/proc/self/fd/{descriptor}").readlink())

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, looking(getattr(os, name)))
        patch.setattr(os, "fsync", syncing)
        yield disk
