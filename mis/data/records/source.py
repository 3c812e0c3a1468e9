"""Where the records of a training are, for the process that reads them: on whatever node that is.

Records that are on a server, or that are to be on each node's own disk (`storage.stage_to`), are copied once for each
node, and compared with the hashes of their index: what a node reads is what was prepared.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mis.data.records import errors
from mis.data.records.index import INDEX, SPLIT, Records
from mis.data.records.reader import read_content, read_records
from mis.errors import MisError
from mis.files import copy_file, is_disk_full, make_folder, new_folder
from mis.settings import Settings
from mis.storage import messages
from mis.storage.path import private_folder, scratch_folder, stage_folder
from mis.storage.remote import RemoteFolder, Say

ALWAYS = (INDEX, SPLIT)
"""The files that every folder of records has. The index comes last: with it the folder is whole."""

SAY_AFTER_S = 5.0
"""Seconds after which a process says that it waits for another one, which copies the records."""


@dataclass(frozen=True)
class RecordsSource:
    """Where the records are.

    Attributes:
        folder: Their folder, as the process that starts a training sees it.
        digest: A hash of all of them, see `Records.digest`; needed where they are copied.
        remote: The folder on a server that has them too; None where every node sees `folder`.
        stage_to: The folder on each node's own disk to which they are copied, as params.yaml has it; None leaves them
            where they are, and takes the temporary folder for those on a server.
    """

    folder: Path
    digest: str = ""
    remote: RemoteFolder | None = None
    stage_to: str | None = None

    def on_this_node(self, say: Say = print, *, index_only: bool = False) -> Path:
        """Return the folder of the records on this node; they are copied where they are not there yet.

        Args:
            say: Takes a line for people, where copying takes a while.
            index_only: Whether the index and the split are enough, because the records are held in memory. Where
                nodes do not see the records, the folder has nothing else: `read_records(folder, complete=False)`.

        Raises:
            MisError: A record has another content than the index says, the disk is full, or the server refuses.
            WorkerError: The server does not answer for as long as is waited for it.
        """
        if self.remote is None and self.stage_to is None:
            return self.folder
        if index_only:
            return self.folder if self.remote is None else self._index_on_this_node(say)
        folder = self._staged()
        self.copy_to(folder, say)
        return folder

    def _index_on_this_node(self, say: Say) -> Path:
        staged = self._staged()
        folder = staged.with_name(f"{staged.name}-index")
        if not (folder / INDEX).is_file():
            make_folder(folder.parent)
            with _alone(folder, say):
                if not (folder / INDEX).is_file():
                    with new_folder(folder) as unfinished:
                        for name in ALWAYS:
                            self._copy(name, unfinished, say)
        return folder

    def copy_to(self, folder: Path, say: Say) -> None:
        """Copy the records into a folder, where they are not there yet: one process does, while others wait for it.

        Args:
            folder: The folder, which is there whole or not at all.
            say: Takes a line for people, where copying takes a while.

        Raises:
            MisError: As `on_this_node`.
            WorkerError: As `on_this_node`.
        """
        if _has_all(folder):
            return
        make_folder(folder.parent)
        with _alone(folder, say):
            if _has_all(folder):
                return
            if folder.is_dir():  # what cleans up a disk has deleted some of it, or cut it off
                self._fill(folder, folder, say)
                return
            with new_folder(folder, go_on=True) as unfinished:
                self._fill(unfinished, folder, say)

    def _staged(self) -> Path:
        if self.stage_to is None:
            return scratch_folder() / "records" / self.digest
        base = stage_folder(self.stage_to)
        try:
            make_folder(base)
            return private_folder(base / f"mis-records-{os.getuid()}") / self.digest
        except OSError as error:
            if is_disk_full(error):
                raise
            raise messages.cannot_stage(base, error.strerror or str(error)) from None

    def _fill(self, folder: Path, shown: Path, say: Say) -> None:
        """Copy what is missing into a folder that an earlier process may have begun, and compare what was copied.

        Args:
            folder: The folder.
            shown: The folder's name when it is whole.
            say: Takes a line for people.
        """
        for file in ALWAYS:
            self._copy(file, folder, say)
        records = read_records(folder, complete=False)
        missing = [case for case in records.split.all if not _is_whole(records, case)]
        size = sum(records.cases[case].size_bytes for case in missing)
        say(f"{len(missing)} records ({size / 1e6:.0f} MB) are copied to {shown} on {os.uname().nodename}")
        for case in missing:
            self._copy(records.path(case).name, folder, say)
            if not _is_whole(records, case):
                records.path(case).unlink()
                raise errors.record_of_other_content(self._source(records.path(case).name))
        read_records(folder)  # no process that the lock does not reach has taken away what was there

    def _copy(self, name: str, folder: Path, say: Say) -> None:
        remote = self.remote
        if remote is None:
            copy_file(self.folder / name, folder / name)
        elif not remote.patiently(lambda: remote.get(name, folder / name), say):
            raise errors.missing(self._source(name))

    def _source(self, name: str) -> Path | str:
        return self.folder / name if self.remote is None else f"{self.remote.url}/{name}"


def source_of(records: Records, settings: Settings) -> RecordsSource:
    """Return where all nodes find records, once `publish` has copied them there.

    Args:
        records: The records.
        settings: The machine's settings.
    """
    place = _place(records.digest, settings)
    if isinstance(place, RemoteFolder):
        return RecordsSource(records.folder, records.digest, place, settings.stage_to)
    return RecordsSource(place or records.folder, records.digest, stage_to=settings.stage_to)


def _place(digest: str, settings: Settings) -> RemoteFolder | Path | None:
    """Return where the storage keeps the records of a digest; None where there is no storage."""
    if settings.is_remote:
        return RemoteFolder(f"{settings.storage}/records/{digest}", settings.storage_wait_s)
    shared = settings.shared_folder
    return None if shared is None else shared / "records" / digest


def kept_source(digest: str, settings: Settings, say: Say) -> RecordsSource | None:
    """Return the records of a digest that the storage has; None where it has none.

    Raises:
        MisError: The storage refuses.
        WorkerError: It does not answer for as long as is waited for it.
    """
    place = _place(digest, settings)
    if isinstance(place, RemoteFolder):
        is_there = place.patiently(lambda: place.entry(INDEX), say) is not None
        return RecordsSource(scratch_folder(), digest, place, settings.stage_to) if is_there else None
    if place is None or not (place / INDEX).is_file():
        return None
    return RecordsSource(place, digest)


def check_stage_to(settings: Settings) -> None:
    """Refuse a `storage.stage_to` that cannot be used here: it will be the same on most nodes.

    One with a variable that is not set here is left to the nodes.

    Raises:
        MisError: It cannot.
    """
    if settings.stage_to is not None and "$" not in os.path.expandvars(settings.stage_to):
        RecordsSource(settings.records, stage_to=settings.stage_to)._staged()


def publish(records: Records, settings: Settings, say: Say = print) -> RecordsSource:
    """Return where all nodes find records; where there is a storage, they are copied to it, once.

    Args:
        records: The records.
        settings: The machine's settings.
        say: Takes a line for people.

    Raises:
        MisError: The storage refuses, or its disk is full, or a record has another content than the index says.
        WorkerError: It does not answer for as long as is waited for it.
    """
    check_stage_to(settings)
    source = source_of(records, settings)
    if source.remote is not None:
        _send(records, source.remote, say)
    elif source.folder != records.folder:
        RecordsSource(records.folder, records.digest).copy_to(source.folder, say)
    return source


def _send(records: Records, remote: RemoteFolder, say: Say) -> None:
    there = remote.patiently(remote.list, say)
    if INDEX in there:
        return
    sizes = {name: (records.folder / name).stat().st_size for name in files_of(records)}
    missing = [name for name, size in sizes.items() if name not in there or there[name].size != size]
    say(f"{len(missing)} files of records ({sum(sizes[name] for name in missing) / 1e6:.0f} MB) go to {remote.url}")
    for name in missing:
        path = records.folder / name
        remote.patiently(lambda path=path, name=name: remote.put(path, name), say)  # type: ignore[misc]


def files_of(records: Records) -> list[str]:
    """Return the names of the files of records; the index is the last."""
    return [*(records.path(case).name for case in records.split.all), SPLIT, INDEX]


@contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Let no other process that copies into the folder run during the block; say so where one is waited for."""
    path = folder.with_suffix(".lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SAY_AFTER_S)
    except Timeout:
        say(f"another process is copying the records to {folder} and holds {path}: it is waited for")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _has_all(folder: Path) -> bool:
    """Return whether a folder has its index, and each record in the size that the index says."""
    try:
        read_records(folder)
    except MisError:
        return False
    return True


def _is_whole(records: Records, case: str) -> bool:
    path = records.path(case)
    if not path.is_file() or path.stat().st_size != records.cases[case].size_bytes:
        return False
    try:
        read_content(records, case)
    except MisError:
        return False
    return True
