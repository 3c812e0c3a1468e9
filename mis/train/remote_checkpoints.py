"""The checkpoints of a training that are kept on the storage, and not in a folder that all nodes see.

The process that trains has them on its own node's disk. After each epoch it sends the new one before the epoch is
reported, so that what is reported is not lost with the node; while the storage does not answer the training goes on,
and they are sent when it answers again. Every other process sees the histories alone, and the model when it asks.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock, Timeout

from mis.errors import WorkerError
from mis.files import make_folder, new_folder, remove_folder
from mis.storage import messages
from mis.storage.path import scratch_folder
from mis.storage.remote import AwayError, RefusedError, RemoteFolder, Say
from mis.storage.sender import FolderSender
from mis.train.checkpoint import BEST, HISTORY, KEPT, STATE, Checkpoints, History

PREFIX = "epoch-"
"""How the names of checkpoints begin."""

INTERRUPTED_WAIT_S = 10.0
"""Seconds that a process which is interrupted waits until its last checkpoint is sent."""

LOCK_S = 60.0
"""Seconds in which the process that had a training on this node before must have ended."""


@dataclass(frozen=True)
class RemoteCheckpoints(Checkpoints):
    """The checkpoints of one training, as a process sees them that does not train.

    Attributes:
        remote: Where they are kept.
        keeps_unsent: Whether a process goes on from epochs that an earlier one on the same node could not send.
    """

    remote: RemoteFolder = field(default_factory=lambda: RemoteFolder("s3://"), kw_only=True)
    keeps_unsent: bool = field(default=True, kw_only=True)

    @property
    def may_lack_epochs(self) -> bool:
        """Whether the last epochs of a process that was lost may be lost with it: then they are trained again."""
        return True

    @contextmanager
    def here(self, *, writes: bool = True, say: Say = print) -> Iterator[Checkpoints]:
        """Yield them on this node's disk, for a process that trains.

        Raises:
            MisError: The storage refuses.
            WorkerError: It does not answer, at the start or at the end, for as long as is waited for it.
        """
        if not writes:
            with TemporaryDirectory(prefix="mis-checkpoints-") as name:
                yield _FetchedCheckpoints(Path(name), writes=False, remote=self.remote)
            return
        folder = scratch_folder() / "checkpoints" / hashlib.sha256(self.remote.url.encode()).hexdigest()[:16]
        make_folder(folder.parent)
        with _locked(folder):
            sender = FolderSender(folder, self.remote, wanted=_is_checkpoint, last=HISTORY, say=say)
            if not self._has_unsent(folder, say):
                shutil.rmtree(folder, ignore_errors=True)
                for name in self.remote.patiently(lambda: fetch(self.remote, folder), say):
                    sender.has(name)
            sender.start()
            try:
                yield _SentCheckpoints(folder, sender=sender)
            except BaseException:
                if sender.close(min(INTERRUPTED_WAIT_S, self.remote.wait_s)):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            if not sender.close(self.remote.wait_s):
                raise messages.not_delivered(self.remote.url, folder, self.remote.wait_s)
            shutil.rmtree(folder, ignore_errors=True)

    def _has_unsent(self, folder: Path, say: Say) -> bool:
        """Return whether this node has more epochs of the same training than the storage."""
        here = Checkpoints(folder).history() if self.keeps_unsent else []
        if not here:
            return False
        there = self.remote.patiently(lambda: _newest_history(self.remote), say)
        return len(here) > len(there) and here[: len(there)] == there

    def fetch_model(self, say: Say = print) -> None:
        """Fetch the model of the newest checkpoint, which is then found here as that of other checkpoints is.

        Raises:
            MisError: The storage refuses.
            WorkerError: It does not answer for as long as is waited for it.
        """

        def get() -> None:
            for epoch in _whole(self.remote.list())[:1]:
                with new_folder(self.folder / epoch) as unfinished:
                    for name in (BEST, HISTORY):
                        self.remote.get(f"{epoch}/{name}", unfinished / name)

        self.remote.patiently(get, say)

    def clear(self) -> None:
        """Delete all checkpoints, here and on the storage; where that does not answer, they stay there."""
        super().clear()
        with suppress(AwayError, RefusedError):
            self.remote.delete([name for name in self.remote.list() if _is_checkpoint(name)])

    def remove(self) -> None:
        """Delete all checkpoints, here and on the storage, and the folder that has them."""
        self.clear()
        super().remove()

    def _kept(self) -> list[Path]:
        """Return all checkpoints, the newest first, with their histories as the storage has them now."""
        with suppress(AwayError, RefusedError):  # what was seen before is not less for it
            self._fetch_histories()
        return super()._kept()

    def _fetch_histories(self) -> None:
        epochs = _whole(self.remote.list())
        for epoch in epochs:
            if not (self.folder / epoch / HISTORY).exists():
                with new_folder(self.folder / epoch) as unfinished:
                    self.remote.get(f"{epoch}/{HISTORY}", unfinished / HISTORY)
        for path in super()._kept():
            if path.name not in epochs:
                remove_folder(path)


@dataclass(frozen=True)
class _SentCheckpoints(Checkpoints):
    """Checkpoints on this node's disk, each of which is sent to the storage when it is written."""

    sender: FolderSender | None = None

    def write(
        self, state: Iterable[np.ndarray], save_model: Callable[[Path], object], history: History, *, improved: bool
    ) -> Path:
        path = super().write(state, save_model, history, improved=improved)
        if self.sender is not None:
            self.sender.flush()
        return path


@dataclass(frozen=True)
class _FetchedCheckpoints(Checkpoints):
    """Checkpoints that another process sends, fetched to this node's disk when they are asked for."""

    remote: RemoteFolder | None = None

    def _kept(self) -> list[Path]:
        if self.remote is not None:
            with suppress(AwayError, RefusedError):
                fetch(self.remote, self.folder)
        return super()._kept()


def fetch(remote: RemoteFolder, folder: Path) -> list[str]:
    """Fetch the newest checkpoints that are not here yet; return the names of the files of all that are here then.

    Raises:
        AwayError: The storage does not answer.
        RefusedError: It refuses.
    """
    names = []
    for epoch in _whole(remote.list()):
        path = folder / epoch
        if not path.exists():
            with new_folder(path) as unfinished:
                whole = all(remote.get(f"{epoch}/{name}", unfinished / name) for name in (STATE, BEST, HISTORY))
            if not whole:  # deleted meanwhile: there is a newer one
                remove_folder(path)
                continue
        names += [f"{epoch}/{name}" for name in (STATE, BEST, HISTORY)]
    return names


def _whole(names: Iterable[str]) -> list[str]:
    """Return the names of the newest checkpoints of which all files are there, the newest first."""
    files: dict[str, set[str]] = {}
    for name in filter(_is_checkpoint, names):
        epoch, _, file = name.partition("/")
        files.setdefault(epoch, set()).add(file)
    return sorted((epoch for epoch, found in files.items() if {STATE, BEST, HISTORY} <= found), reverse=True)[:KEPT]


def _newest_history(remote: RemoteFolder) -> History:
    for epoch in _whole(remote.list()):
        content = remote.read(f"{epoch}/{HISTORY}")
        if content is not None:
            history: History = json.loads(content)
            return history
    return []


def _is_checkpoint(name: str) -> bool:
    return name.startswith(PREFIX) and name.count("/") == 1


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_suffix(".lock"), timeout=LOCK_S)
    try:
        lock.acquire()
    except Timeout:
        raise WorkerError(f"another process of this node trains the same and has not ended in {LOCK_S:.0f} s") from None
    try:
        yield
    finally:
        lock.release()
