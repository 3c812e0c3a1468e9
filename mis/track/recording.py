"""A tracker whose runs go to an outbox first: to log waits for the disk of this machine, and for no server."""

import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mis.files import is_disk_full
from mis.settings import Settings
from mis.track.base import Run, RunStore, Status, param_text
from mis.track.names import RUN_KEY_TAG
from mis.track.outbox import SYNC, HeldError, Kind, Outbox, claimed, count_waiting, outboxes
from mis.track.sender import Sender, Warn, say_on_stderr
from mis.track.store import location_of, name_of_store, tracking_uri
from mis.words import counted, noun

PATIENCE_S = 120.0
"""Seconds that a command waits at its end for a server that takes nothing."""

SHORT_PATIENCE_S = 10.0
"""Seconds that it waits where it was interrupted, or was told that there may be no server."""


class OutboxRun:
    """A run that is logged to an outbox; `OutboxTracker` makes it.

    Attributes:
        number: Its number in the outbox while it is open; None for one that is only added to.
        delivered_id: Its id in the store; None so long as it is not delivered.
    """

    def __init__(self, tracker: "OutboxTracker", experiment: str, key: Mapping[str, str], number: int | None) -> None:
        self._tracker = tracker
        self._found_by: dict[str, Any] = {"experiment": experiment, "key": dict(key)}
        self.number = number
        self.delivered_id: str | None = None

    @property
    def id(self) -> str | None:
        """The run's id in the store; None so long as it is not delivered."""
        return self.delivered_id

    @property
    def waits(self) -> bool:
        """Whether something that its process has logged is not delivered; of one that lives, always."""
        return self._tracker.waits

    @property
    def reference(self) -> int | Mapping[str, Any]:
        """What an operation names the run by: its number while it is open, then how it is found."""
        return self._found_by if self.number is None else self.number

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; see `Run.log_params`."""
        self._append("params", values={name: param_text(value) for name, value in params.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""
        self._append("tags", values={name: str(text) for name, text in tags.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics; see `Run.log_metrics`."""
        self._append("metrics", values={name: float(value) for name, value in metrics.items()}, step=int(step))

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep a file as it is now, for the run's artifacts."""
        self._tracker.append_file(self.reference, path, folder)

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Record which data were read."""
        self._append("dataset", name=name, digest=digest, source=source)

    def finish(self, status: Status = "FINISHED") -> None:
        """Record how the run ended, and when."""
        self._append("finish", status=status)
        self.number = None

    def _append(self, kind: Kind, **content: object) -> None:
        self._tracker.append(kind, self.reference, **content)


class OutboxTracker:
    """Runs that go to the outbox of this process, from which a thread delivers them."""

    def __init__(self, outbox: Outbox, sender: Sender, location: str) -> None:
        """Take an outbox and who delivers it; `open_tracker` makes all three."""
        self._outbox = outbox
        self._sender = sender
        self._location = location
        self._runs: weakref.WeakValueDictionary[int, OutboxRun] = weakref.WeakValueDictionary()
        sender.opened = self._note_id

    def open_run(
        self,
        experiment: str,
        name: str,
        *,
        key: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
    ) -> OutboxRun:
        """Open a run; see `Tracker.open_run`."""
        key = key or {RUN_KEY_TAG: uuid.uuid4().hex}
        run = OutboxRun(self, experiment, key, None)
        content = {
            "experiment": experiment,
            "name": name,
            "key": dict(key),
            "params": {name: param_text(value) for name, value in (params or {}).items()},
            "tags": {name: str(text) for name, text in (tags or {}).items()},
            "parent": parent.reference if isinstance(parent, OutboxRun) else None,
        }
        with self._outbox.unchanging():
            self._runs[self._outbox.count + 1] = run  # first: it may be delivered at once
            run.number = self.append("open", 0, **content)
        return run

    def add_to_run(self, experiment: str, key: Mapping[str, str]) -> OutboxRun:
        """Return the newest run that has all the tags, to add to it."""
        return OutboxRun(self, experiment, key, None)

    def location(self) -> str:
        """Return one line that tells a person where to look."""
        return self._location

    @property
    def waits(self) -> bool:
        """Whether the outbox has something that is not delivered; until it is closed, always."""
        return self._outbox.is_left

    def append(self, kind: Kind, run: int | Mapping[str, Any], **content: object) -> int:
        """Append an operation to the outbox and return its number."""
        number = self._outbox.append(kind, run, **content)
        self._sender.wake()
        return number

    def append_file(self, run: int | Mapping[str, Any], path: Path, folder: str) -> None:
        """Append a file to the outbox."""
        self._outbox.append_file(run, path, folder)
        self._sender.wake()

    def _note_id(self, number: int, run_id: str) -> None:
        if (run := self._runs.get(number)) is not None:
            run.delivered_id = run_id


def connect(settings: Settings) -> RunStore:
    """Open MLflow's store to deliver to it.

    Raises:
        MisError: See `MlflowTracker`.
    """
    from mis.track.mlflow import MlflowTracker, impatient  # late: mlflow takes 3 s to import

    impatient()
    return MlflowTracker(settings)


@contextmanager
def open_tracker(settings: Settings, say: Warn = say_on_stderr) -> Iterator[OutboxTracker]:
    """Yield the tracker of a command; at the end, wait until all is delivered, or say what waits.

    Where a disk is full, nothing is waited for: there is no space a little later either.

    Args:
        settings: The machine's settings. `offline` contacts no server before the block.
        say: Takes a line for the user.

    Raises:
        MisError: The tracking URI is of an unknown kind, or its server does not answer; DiskFullError.
    """
    uri, name = tracking_uri(settings), name_of_store(settings)
    store = None if settings.offline else connect(settings)
    outbox = Outbox.create(settings.outboxes, name)
    sender = Sender(outbox, lambda: connect(settings), store, say)
    sender.start()
    delivered, has_space = False, True
    patience_s = SHORT_PATIENCE_S if settings.offline else PATIENCE_S
    try:
        yield OutboxTracker(outbox, sender, location_of(uri))
    except BaseException as error:
        has_space = not is_disk_full(error)
        patience_s = patience_s if isinstance(error, Exception) else SHORT_PATIENCE_S
        raise
    finally:
        try:
            delivered = sender.close(patience_s if has_space else 0.0)
        finally:
            outbox.close(delivered=delivered)
            if not delivered and has_space:  # otherwise the error says it
                say(waiting_line(settings.outboxes, sender.failure))


def waiting_line(parent: Path, failure: str | None = None) -> str:
    """Return what waits in outboxes, and how it is sent, on one line."""
    counts = []
    for folder in outboxes(parent):
        with suppress(HeldError, OSError), claimed(folder):
            counts.append(count_waiting(folder))
    operations, runs = (sum(numbers) for numbers in zip((0, 0), *counts, strict=True))
    why = "" if failure is None else f" (MLflow does not answer: {failure})"
    verb = "waits" if operations == 1 else "wait"
    return (
        f"{counted(operations, 'operation')} of {runs} {noun(runs, 'run')} {verb} in {parent}{why}; nothing is lost: "
        f"`{SYNC}` sends them"
    )


def delivered_id(run: Run) -> str | None:
    """Return a run's id in the store once its tracker is closed; None where the run, or a part of it, still waits."""
    return None if isinstance(run, OutboxRun) and run.waits else run.id


def where(run_id: str | None, settings: Settings) -> str:
    """Return where a command's runs are, as the end of a line: in the store, or in the outbox.

    Args:
        run_id: The `delivered_id` of its run.
        settings: The machine's settings.
    """
    if run_id is None:
        return f"waiting in {settings.outboxes}; `{SYNC}` sends them"
    return f"run {run_id} in {location_of(tracking_uri(settings))}"


def reader(settings: Settings) -> RunStore | None:
    """Return the store to read earlier runs from; None where a command runs without its server.

    Raises:
        MisError: See `MlflowTracker`.
    """
    return None if settings.offline else connect(settings)
