"""The outbox of a process: what it logs, durable on disk, before it is delivered to a store of runs.

An outbox is a folder below `mlruns/outbox`, named after the time, the host and the process:

- `log.jsonl`: an operation a line, see `Operation`. One process appends to it.
- `files/`: links to the files that are to be delivered, or copies of them.
- `delivered`: the number of the last operation that is known to be in the store. It may lag behind: an operation that
  is delivered twice changes nothing.
- `lock`: held by the process whose outbox it is until it closes it, or ends in whatever way.
- `refused.jsonl`: operations that the store will never take, and those of a run that it will not open, each with the
  reason; below the outbox' first line, so that they can be delivered once more.

What is delivered is removed, and an outbox that is delivered and closed as a whole.
"""

import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mis.errors import MisError
from mis.files import REMOVED, LineLog, exclusive_lock, link_or_copy, remove_file, remove_folder, sync
from mis.track.base import now_ms
from mis.track.process import process_tags

LOG, FILES, DELIVERED, LOCK, REFUSED = "log.jsonl", "files", "delivered", "lock", "refused.jsonl"

SYNC = "python -m mis.track sync"
"""The command that delivers what waits."""

BEING_MADE_S = 3600.0
"""Seconds after which an outbox that is being made is no longer."""

READ_BYTES = 2**18
"""How much of a log is read at once; so much of it is in memory, however long the store is away."""

Kind = Literal["begin", "open", "params", "tags", "metrics", "file", "dataset", "finish"]


@dataclass(frozen=True)
class Operation:
    """What a process has logged with one call.

    Attributes:
        number: Its number in its outbox, from 1.
        at_ms: When it was logged, in milliseconds since 1970; never less than that of the operation before.
        kind: What it does. `begin` is the first one, which has the tags of the process and the name of the store.
        run: The number of the run, which is that of its `open`, 0 for `begin`; or the experiment and the tags by which
            a run is found that is only added to. Of an operation that was refused it has `opened_ms` too, when the run
            was opened: it must be there.
        content: The rest, by `kind`.
    """

    number: int
    at_ms: int
    kind: Kind
    run: int | Mapping[str, Any]
    content: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the line of the log."""
        return json.dumps([self.number, self.at_ms, self.kind, self.run, self.content], separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> "Operation":
        """Return the operation of a line of the log."""
        return cls(*json.loads(line))


class Outbox:
    """The outbox of this process, which appends to it and holds its lock.

    Attributes:
        folder: Its folder.
        log: Its log, which another thread of this process may read.
        count: How many operations it has had.
    """

    def __init__(self, folder: Path, store: str) -> None:
        """Make the folder; see `create`."""
        self.folder = folder
        self.log = LineLog(folder / LOG)
        self.count = 0
        self._last_ms = 0
        self._guard = threading.RLock()
        self._held = ExitStack()
        # Under another name until it is locked: others take an outbox that nobody holds for one whose process is dead.
        unfinished = folder.with_name(f".{folder.name}")
        self._held.enter_context(_claim(unfinished))
        unfinished.rename(folder)
        sync(folder.parent)
        self.append("begin", 0, store=store, process=process_tags())

    @classmethod
    def create(cls, parent: Path, store: str) -> "Outbox":
        """Make an outbox below a folder.

        Args:
            parent: The folder of the outboxes.
            store: The name of the store to which it is to be delivered.

        Raises:
            DiskFullError: The disk is full.
        """
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        began = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}-{nanoseconds:09d}"
        return cls(parent / f"{began}-{platform.node()}-{os.getpid()}", store)

    def append(self, kind: Kind, run: int | Mapping[str, Any], **content: object) -> int:
        """Append an operation and return its number; when it returns, the operation is on the disk.

        Raises:
            DiskFullError: The disk is full; nothing was appended.
        """
        with self._guard:
            self._last_ms = max(self._last_ms, now_ms())
            number = self.count + 1
            named = number if kind == "open" else run
            self.log.append([Operation(number, self._last_ms, kind, named, content).to_line()])
            self.count = number
            return number

    def append_file(self, run: int | Mapping[str, Any], path: Path, folder: str) -> None:
        """Keep a file as it is now, and append that it is to be delivered.

        Raises:
            DiskFullError: The disk is full; nothing was appended.
        """
        with self._guard:
            kept = Path(FILES) / str(self.count + 1) / path.name
            link_or_copy(path, self.folder / kept)
            self.append("file", run, path=kept.as_posix(), folder=folder)

    @property
    def is_left(self) -> bool:
        """Whether it has not been removed as delivered."""
        return self.log.path.exists()

    def shorten(self, lines: list[str]) -> None:
        """Write these lines in place of the log: what is still needed of operations that are delivered."""
        self.log.replace(lines)

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Let nothing be appended during the block."""
        with self._guard:
            yield

    def close(self, *, delivered: bool) -> None:
        """Let others deliver what waits, or remove the outbox where all is delivered."""
        if delivered:
            remove_delivered(self.folder)
        self._held.close()


def remove_delivered(folder: Path) -> None:
    """Remove an outbox that is delivered, but for what the store has refused."""
    if (folder / REFUSED).exists():
        remove_file(folder / LOG)
        remove_file(folder / DELIVERED)
        return
    remove_folder(folder)


def outboxes(parent: Path) -> list[Path]:
    """Return the outboxes below a folder in which something waits, oldest first; or the folder, if it is one itself."""
    if (parent / LOG).is_file():
        return [parent]
    return sorted(log.parent for log in parent.glob(f"*/{LOG}") if not log.parent.name.startswith("."))


def waits_for_another(folder: Path, store: str | None, name: str | None) -> str:
    """Return what is said of an outbox that waits for another store, on one line.

    Args:
        folder: The outbox.
        store: The name of the store that it waits for.
        name: The name of the store that MLFLOW_TRACKING_URI names.
    """
    return (
        f"{folder} waits for {store}, and is left there: name that in MLFLOW_TRACKING_URI, or `{SYNC} {folder}` "
        f"delivers it to {name}"
    )


def sweep(parent: Path) -> None:
    """Remove what processes have left that were killed while they made or removed an outbox."""
    for folder in parent.iterdir():
        if (folder / LOG).exists() or not folder.is_dir():
            continue
        if folder.name.endswith(REMOVED):
            shutil.rmtree(folder, ignore_errors=True)
        elif not folder.name.startswith(".") or time.time() - folder.stat().st_mtime > BEING_MADE_S:
            with suppress(MisError, OSError), claimed(folder):
                pass


class HeldError(MisError):
    """Another process, which lives, holds an outbox."""

    def __init__(self, folder: Path) -> None:
        super().__init__("an outbox is delivered by the process that writes it", got=folder)


class DamagedError(MisError):
    """The log of an outbox has lines that no version of `mis` has written."""

    def __init__(self, log: Path) -> None:
        super().__init__("an outbox must have a log that can be read", got=log, do="it is left as it is")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the lock of an outbox whose process has ended, during the block.

    Raises:
        HeldError: Its process lives, or another one is delivering it.
    """
    with _claim(folder):
        yield
    if not (folder / LOG).exists() and not (folder / REFUSED).exists():
        shutil.rmtree(folder, ignore_errors=True)  # removed within the block, or by another process before it


@contextmanager
def _claim(folder: Path) -> Iterator[None]:
    with exclusive_lock(folder / LOCK, HeldError(folder)):
        yield


def count_waiting(folder: Path) -> tuple[int, int]:
    """Return how many operations of an outbox are not known to be delivered, and of how many runs they are.

    Where the log is damaged, those before the damage count.
    """
    log, position, delivered = LineLog(folder / LOG), 0, read_delivered(folder)
    runs: set[int | str] = set()
    operations = 0
    while True:
        try:
            found, position = read_operations(log, position)
        except DamagedError:
            found = []
        if not found:
            return operations, len(runs)
        for operation in found:
            if operation.number > delivered and operation.kind != "begin":
                operations += 1
                runs.add(operation.run if isinstance(operation.run, int) else json.dumps(operation.run))


def read_operations(log: LineLog, position: int) -> tuple[list[Operation], int]:
    """Return some operations of a log from a position on, and the position after them.

    Raises:
        DamagedError: A line is none.
    """
    try:
        lines, position = log.read_from(position, READ_BYTES)
        return [Operation.from_line(line) for line in lines], position
    except (ValueError, TypeError) as error:
        raise DamagedError(log.path) from error


@dataclass(frozen=True)
class Refusal:
    """An operation that the store has refused, and why."""

    operation: Operation
    reason: str


def keep_refused(folder: Path, begin: Operation, refusal: Refusal) -> None:
    """Keep an operation beside the log of its outbox, whose first one is `begin`.

    Raises:
        DiskFullError: The disk is full; nothing was kept.
    """
    kept = [refusal] if (folder / REFUSED).exists() else [Refusal(begin, ""), refusal]
    lines = [json.dumps([one.operation.to_line(), one.reason]) for one in kept]
    LineLog(folder / REFUSED).append(lines)


def read_refused(folder: Path) -> list[Refusal]:
    """Return what the store has refused of an outbox, in the order in which it was logged.

    Raises:
        DamagedError: It cannot be read.
    """
    return [refusal for refusal in _all_refused(folder) if refusal.operation.kind != "begin"]


def _all_refused(folder: Path) -> list[Refusal]:
    """Return the first line of an outbox, where it was kept, and what the store has refused."""
    path, found = folder / REFUSED, {}
    try:
        for line in LineLog(path).read():
            text, reason = json.loads(line)
            operation = Operation.from_line(text)
            found[operation.number] = Refusal(operation, reason)  # one that was refused again is there twice
    except (ValueError, TypeError) as error:
        raise DamagedError(path) from error
    return [found[number] for number in sorted(found)]


def put_back_refused(folder: Path) -> None:
    """Let what the store has refused wait again, as the log of an outbox of which all else is delivered.

    Raises:
        DamagedError: It cannot be read.
        DiskFullError: The disk is full; all is as it was.
    """
    operations = [refusal.operation for refusal in _all_refused(folder)]
    if operations[0].kind != "begin":  # an earlier version did not keep it
        operations.insert(0, Operation(0, 0, "begin", 0, {"store": None, "process": {}}))
    remove_file(folder / DELIVERED)  # first: what waits again must not be taken for delivered
    LineLog(folder / LOG).replace([operation.to_line() for operation in operations])
    remove_file(folder / REFUSED)


def refused_outboxes(parent: Path) -> list[Path]:
    """Return the outboxes below a folder of which something was refused, oldest first; or the folder, if it is one."""
    if (parent / REFUSED).is_file():
        return [parent]
    return sorted(path.parent for path in parent.glob(f"*/{REFUSED}") if not path.parent.name.startswith("."))


def read_delivered(folder: Path) -> int:
    """Return the number of the last operation that is known to be delivered; 0 where none is."""
    try:
        return int((folder / DELIVERED).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
