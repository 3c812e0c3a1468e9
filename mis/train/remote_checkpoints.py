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
from mis.storage.claim import SESSION
from mis.storage.path import scratch_folder
from mis.storage.remote import AwayError, RefusedError, RemoteFolder, Say
from mis.storage.sender import FolderSender
from mis.termination import was_terminated
from mis.train.checkpoint import BEST, HISTORY, KEPT, SEEN_WITHIN_S, STATE, Checkpoints, History
from mis.train.progress import show_message

PREFIX = "epoch-"
"""How the names of checkpoints begin."""

IDENTITY = ".identity"
"""The file on a node's disk that says of which training the checkpoints are."""

OTHERS_WAIT_S = 10.0
"""Seconds for which a process that attends to many trainings waits for an epoch of one."""

INTERRUPTED_WAIT_S = 10.0
"""Seconds that a process which is interrupted waits until its last checkpoint is sent."""

LOCK_S = 60.0
"""Seconds in which the process that had a training on this node before must have ended."""


@dataclass(frozen=True)
class RemoteCheckpoints(Checkpoints):
    """The checkpoints of one training, as a process sees them that does not train.

    Its folder has what was seen of them: the histories, and the model once that was fetched.

    Attributes:
        remote: Where they are kept.
        identity: Which training it is of all that had the same name: a process goes on from epochs that an earlier one
            of the same training could not send from the same node; "" never does.
    """

    remote: RemoteFolder = field(default_factory=lambda: RemoteFolder("s3://"), kw_only=True)
    identity: str = field(default="", kw_only=True)

    @property
    def may_lack_epochs(self) -> bool:
        """Whether the last epochs of a process that was lost may be lost with it: then they are trained again."""
        return True

    @property
    def seen_within_s(self) -> float:
        """Seconds for which what another process has written is waited for: this one has others to attend to."""
        return OTHERS_WAIT_S

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
        folder = scratch_folder() / "checkpoints" / name_here(self.remote)
        make_folder(folder.parent)
        with _locked(folder):
            sender = FolderSender(folder, self.remote, wanted=_is_checkpoint, last=HISTORY, owns_folders=True, say=say)
            if not self._has_unsent(folder, say):
                shutil.rmtree(folder, ignore_errors=True)
                for name in self.remote.patiently(lambda: fetch(self.remote, folder), say):
                    sender.has(name)
            make_folder(folder)
            (folder / IDENTITY).write_text(self.identity, encoding="utf-8")
            sender.start()
            try:
                yield _SentCheckpoints(folder, sender=sender)
            except BaseException as error:
                # SystemExit is also how a search ends a trial, whose last model counts.
                is_ended = isinstance(error, SystemExit) and not was_terminated()
                wait_s = self.remote.wait_s if is_ended else INTERRUPTED_WAIT_S
                if sender.close(min(wait_s, self.remote.wait_s)):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            if not sender.close(self.remote.wait_s):
                raise messages.not_delivered(self.remote.url, folder, self.remote.wait_s)
            shutil.rmtree(folder, ignore_errors=True)

    def _has_unsent(self, folder: Path, say: Say) -> bool:
        """Return whether this node has more epochs of the same training than the storage."""
        known = folder / IDENTITY
        if not self.identity or not known.exists() or known.read_text(encoding="utf-8") != self.identity:
            return False
        here = Checkpoints(folder).history()
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
            self.remote.delete_folders_of(filter(_is_checkpoint, self.remote.list()))

    def remove(self) -> None:
        """Delete all checkpoints, here and on the storage, with the sessions of their training, and its folder here."""
        try:
            self.remote.delete([SESSION])  # first: what is left then belongs to no training
        except (AwayError, RefusedError):
            show_message(messages.stays(self.remote.url))
        else:
            self.clear()
        remove_folder(self.folder.parent)

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

    @property
    def seen_within_s(self) -> float:
        """Seconds for which what another process has written is waited for."""
        return SEEN_WITHIN_S if self.remote is None else max(SEEN_WITHIN_S, self.remote.wait_s)

    def _kept(self) -> list[Path]:
        if self.remote is not None:
            with suppress(AwayError, RefusedError):
                fetch(self.remote, self.folder)
        return super()._kept()


def send_checkpoints(plain: Checkpoints, kept: Checkpoints, say: Say) -> None:
    """Send checkpoints that were written here alone, where the storage has fewer, and delete them here.

    Args:
        plain: Those of the folder.
        kept: The same training's, perhaps on the storage.
        say: Takes a line for people.

    Raises:
        MisError: The storage refuses.
        WorkerError: It does not answer for as long as is waited for it.
    """
    if not isinstance(kept, RemoteCheckpoints) or not (history := plain.history()):
        return
    remote = kept.remote
    if len(remote.patiently(lambda: _newest_history(remote), say)) < len(history):
        say(messages.sent_there(plain.folder, remote.url))
        sender = FolderSender(plain.folder, remote, wanted=_is_checkpoint, last=HISTORY, owns_folders=True, say=say)
        remote.patiently(sender.send, say)
    plain.clear()


def name_here(remote: RemoteFolder) -> str:
    """Return the name of the folder on a node's own disk for the checkpoints of a folder of the storage."""
    return hashlib.sha256(remote.url.encode()).hexdigest()[:16]


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
