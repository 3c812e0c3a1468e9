"""From outboxes to the store of runs: in order, each thing once, again and again until the store has it."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mis.errors import MisError
from mis.files import LineLog, is_disk_full, new_file, remove_folder
from mis.track.base import NoRun, Point, RunStore, StoredRun, points_of
from mis.track.outbox import (
    DELIVERED,
    LOG,
    REFUSED,
    DamagedError,
    HeldError,
    Operation,
    Outbox,
    Refusal,
    claimed,
    keep_refused,
    outboxes,
    read_delivered,
    read_operations,
    read_refused,
    remove_delivered,
    sweep,
    waits_for_another,
)
from mis.track.store import reason_of
from mis.words import counted

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Seconds after a failure in which the store is left alone: at first, and after many failures."""

LONGEST_LEFT_PAUSE_S = 60.0
"""Seconds after many failures in which what other processes have left is not tried again."""

DOUBTS = 5
"""How often an operation is tried that the store may refuse, while it takes others, before it counts as refused."""

OTHERS = 3
"""How many others are tried each time, until one of them is taken."""

MOST_WAITING = 10_000
"""How many operations are in memory at most for others to be found."""

MARK_EVERY = 200
"""Operations after which the mark is written of how far the delivery is."""

SHORTEN_BYTES = 2**23
"""The size from which a log is shortened whose operations are all delivered."""

SAID_REFUSALS = 3
"""How many refusals of the store are said; all of them are kept."""

QUIET_S = 3.0
"""Seconds in which the end of a command waits for the delivery without a word."""

Warn = Callable[[str], None]


def say_on_stderr(line: str) -> None:
    """Print a line for the user, above a progress bar."""
    tqdm.write(line, file=sys.stderr)


class _RefusedRunError(LookupError):
    """The store has refused to open the run, and what belongs to it is kept with that."""

    def __init__(self) -> None:
        super().__init__("its run was refused")


class _MissingFileError(Exception):
    """A file that is to be delivered is not in the outbox, and not in the store."""


class Delivery:
    """How far an outbox is delivered.

    Attributes:
        folder: The outbox.
        delivered: The number of the last operation up to which the store has all.
        store: The name of the store that the outbox is for; None until its first line is read.
        refused: How many operations were refused.
    """

    def __init__(
        self,
        folder: Path,
        log: LineLog | None = None,
        *,
        say: Warn = say_on_stderr,
        opened: Callable[[int, str], None] = lambda run, run_id: None,  # noqa: ARG005
    ) -> None:
        """Begin where an earlier delivery has ended.

        Args:
            folder: The outbox.
            log: Its log, where this process appends to it.
            say: Takes a line for the user.
            opened: Takes the number of a run and its id in the store.
        """
        self.folder = folder
        self.delivered = read_delivered(folder)
        self.store: str | None = None
        self._log = log or LineLog(folder / LOG)
        self._is_left = log is None
        self._say = say
        self._opened = opened
        self._process: Mapping[str, str] = {}
        self._position = 0
        self._read = 0
        self._marked = self.delivered
        self._waiting: list[Operation] = []
        # Of runs that are open: their operation, when something was last logged of them, and where they are.
        self._open: dict[int, Operation] = {}
        self._last_ms: dict[int, int] = {}
        self._runs: dict[int, StoredRun | NoRun] = {}
        self._doubtful: set[int] = set()  # runs that a call that seemed to fail may have made once more
        self.refused = 0
        self._refused_runs: set[int] = set()
        with suppress(DamagedError):
            kept = [refusal.operation for refusal in read_refused(folder)]
            self._refused_runs |= {operation.number for operation in kept if operation.kind == "open"}
        self._alone: set[int] = set()  # points that were refused together with others
        self._doubts = (0, 0)  # the number of an operation, and how often it was not taken while others were
        self._fill()

    def step(self, store: RunStore) -> int:
        """Deliver the next operation, or some that go together, and return how many; 0 where nothing waits.

        Raises:
            Exception: The store does not answer, or not now: the same call tries the same again.
            DamagedError: The log cannot be read.
        """
        self._fill()
        if not self._waiting:
            return 0
        together = self._together(0)
        try:
            self._deliver(together, store)
        except Exception as error:
            if not self._is_refused(together, error, store):
                raise
            if len(together) > 1:
                self._alone |= {operation.number for operation in together}
                return self.step(store)
            self._refuse(together[0], error)
        self._note_done(together)
        return len(together)

    def _is_refused(self, together: list[Operation], error: Exception, store: RunStore) -> bool:
        """Return whether what has failed with an error will never be taken.

        Where the error may say that, or may pass, other operations are tried: if the store takes none, it is the store.
        """
        if isinstance(error, _MissingFileError) or store.refuses(error):
            return True
        if not store.may_refuse(error):
            return False
        number, doubts = self._doubts
        doubts = doubts if number == together[0].number else 0
        doubts += self._goes_on_with_others(store)
        self._doubts = (together[0].number, doubts % DOUBTS)
        return doubts == DOUBTS

    def _goes_on_with_others(self, store: RunStore) -> bool:
        """Deliver the next operations that need not wait for the first one, and return whether the store took any."""
        others = list(islice(self._others(), OTHERS))
        if not others and len(self._waiting) < MOST_WAITING:
            self._read_on()
            others = list(islice(self._others(), OTHERS))
        for together in others:
            with suppress(Exception):  # it has a turn of its own
                self._deliver(together, store)
                self._note_done(together)
                return True
        return False

    def _others(self) -> Iterator[list[Operation]]:
        """Yield what may be delivered before the first operation: nothing of which the order matters."""
        first = self._waiting[0]
        held: set[int] = set()  # runs that wait for the first one's
        passed: set[int] = set()  # runs of which an operation has to come before
        for index, operation in enumerate(self._waiting[1:], start=1):
            run, parent = operation.run, operation.content.get("parent")
            if not isinstance(run, int):  # it may be one of these runs
                continue
            if operation.kind == "open" and isinstance(parent, int) and (parent == first.run or parent in held):
                held.add(run)
            waits = run in held or run in passed
            if run == first.run:  # the same kinds have an order
                waits = waits or first.kind == "open" or operation.kind in (first.kind, "finish")
            if not waits:
                yield self._together(index)
                passed.add(run)
            elif run != first.run:
                passed.add(run)

    def _note_done(self, together: list[Operation]) -> None:
        """Note that operations are delivered, or kept where they were refused."""
        for operation in together:
            self._note(operation)
            self._alone.discard(operation.number)
        done = {operation.number for operation in together}
        self._waiting = [operation for operation in self._waiting if operation.number not in done]
        self.delivered = self._waiting[0].number - 1 if self._waiting else self._read
        if self.delivered - self._marked >= MARK_EVERY:
            self.mark()

    def finish(self, store: RunStore) -> None:
        """End the runs that a dead process has never finished, when it last logged something, and remove the outbox."""
        for number in [number for number in self._open if number not in self._refused_runs]:
            at_ms = max([self._last_ms[number], *self._times_below(number)])
            try:
                run = self._run(number, store)
                if not isinstance(run, NoRun):
                    run.finish("KILLED", at_ms)
            except Exception as error:
                if not store.refuses(error):  # otherwise the run was refused, or deleted
                    raise
        remove_delivered(self.folder)

    def mark(self) -> None:
        """Write how far the delivery is, if that has changed. What cannot be written is delivered once more."""
        if self.delivered == self._marked:
            return
        with suppress(OSError, MisError), new_file(self.folder / DELIVERED) as unfinished:
            unfinished.write_text(str(self.delivered), encoding="ascii")
        self._marked = self.delivered

    def shorten(self, outbox: Outbox) -> None:
        """Shorten a long log whose operations are all delivered to what tells of the runs that are open."""
        if self._position < SHORTEN_BYTES:
            return
        with outbox.unchanging():
            if self.delivered < outbox.count:
                return
            self.mark()  # first: what is kept is not delivered again
            kept = [Operation(1, 0, "begin", 0, {"store": self.store, "process": self._process})]
            for number, operation in self._open.items():
                last = Operation(operation.number, self._last_ms[number], "tags", number, {"values": {}})
                kept += [operation, last]
            with suppress(OSError, MisError):  # it stays long: the disk may be full
                outbox.shorten([operation.to_line() for operation in kept])
            self._position = 0

    def _times_below(self, number: int) -> Iterator[int]:
        for other, operation in self._open.items():
            if operation.content["parent"] == number:
                yield self._last_ms[other]

    def _fill(self) -> None:
        """Read the next operations that are not known to be delivered, if none waits in memory."""
        while not self._waiting:
            if not self._read_on():
                return

    def _read_on(self) -> bool:
        """Read the next operations of the log, and return whether there were any."""
        operations, self._position = read_operations(self._log, self._position)
        for operation in operations:
            self._read = max(self._read, operation.number)
            if operation.kind == "begin":
                self.store = operation.content["store"]
                self._process = operation.content["process"]
            elif operation.number <= self.delivered:
                self._note(operation)
            else:
                self._waiting.append(operation)
        self.delivered = max(self.delivered, self._waiting[0].number - 1 if self._waiting else self._read)
        return bool(operations)

    def _together(self, index: int) -> list[Operation]:
        """Return an operation that waits; points of metrics with those that follow of the same run."""
        first = self._waiting[index]
        if first.kind != "metrics" or first.number in self._alone:
            return [first]
        together = []
        for operation in self._waiting[index:]:
            if operation.run == first.run:
                if operation.kind != "metrics":
                    break
                together.append(operation)
        return together

    def _note(self, operation: Operation) -> None:
        """Keep what is needed of a run while it is open, and nothing longer."""
        run = operation.run
        if not isinstance(run, int):
            return
        if operation.kind == "open":
            self._open[run] = operation
        if run in self._open:
            self._last_ms[run] = operation.at_ms
        if operation.kind == "finish":
            self._open.pop(run, None)
            self._last_ms.pop(run, None)
            self._runs.pop(run, None)
            self._doubtful.discard(run)

    def _deliver(self, together: list[Operation], store: RunStore) -> None:
        operation, content = together[0], together[0].content
        if operation.kind == "open":
            self._open_run(operation, store)
            return
        run = self._run(operation.run, store)
        if operation.kind != "metrics" and isinstance(operation.run, int) and operation.run in self._doubtful:
            self._remove_doubles(operation.run, run, store)
        if operation.kind == "params":
            run.log_params(content["values"])
        elif operation.kind == "tags":
            run.set_tags(content["values"])
        elif operation.kind == "metrics":
            self._log_points(run, together)
        elif operation.kind == "dataset":
            run.log_dataset(content["name"], content["digest"], content["source"])
        elif operation.kind == "file":
            self._log_file(run, self.folder / content["path"], content["folder"])
        elif operation.kind == "finish" and not isinstance(run, NoRun):
            run.finish(content["status"], operation.at_ms)

    def _open_run(self, operation: Operation, store: RunStore) -> None:
        content, number = operation.content, operation.number
        try:
            run = store.deliver_run(
                content["experiment"],
                content["name"],
                key=content["key"],
                params=content["params"],
                tags=content["tags"],
                parent=self._id_of(content["parent"], store),
                at_ms=operation.at_ms,
                process=self._process,
                lives=not self._is_left,
            )
        except Exception:
            self._doubtful.add(number)
            raise
        if self._is_left:  # its process may have tried it too
            self._doubtful.add(number)
        self._runs[number] = run
        self._opened(number, run.id)

    def _id_of(self, run: int | Mapping[str, Any] | None, store: RunStore) -> str | None:
        """Return the id of a run in the store; None where it has none, or has refused it."""
        with suppress(LookupError):
            return None if run is None else self._run(run, store).id
        return None

    def _run(self, run: int | Mapping[str, Any], store: RunStore) -> StoredRun | NoRun:
        """Return a run of the store: one that is open, or one that is only added to."""
        if not isinstance(run, int):
            if "opened_ms" not in run:
                return store.find_run(run["experiment"], run["key"], go_on=False) or NoRun()
            return self._find_opened(run["experiment"], run["key"], run["opened_ms"], store)
        if run in self._refused_runs or (run not in self._runs and run not in self._open):
            raise _RefusedRunError
        if run not in self._runs:
            opened = self._open[run]
            content = opened.content
            self._runs[run] = found = self._find_opened(content["experiment"], content["key"], opened.at_ms, store)
            self._opened(run, found.id)
        return self._runs[run]

    def _find_opened(self, experiment: str, key: Mapping[str, str], at_ms: int, store: RunStore) -> StoredRun:
        """Return a run that a session of this outbox' process has opened."""
        found = store.find_run(experiment, key, go_on=False)
        if found is None:
            raise LookupError(f"the store has no run of {', '.join(key.values())} any more")
        found.resume_session(self._process, at_ms)
        return found

    def _remove_doubles(self, number: int, run: StoredRun | NoRun, store: RunStore) -> None:
        """Delete what a call that seemed to fail has made all the same, perhaps long after it was repeated."""
        if not isinstance(run, NoRun):
            opened = self._open[number]
            store.remove_doubles(run, opened.content["experiment"], opened.content["key"], opened.at_ms)

    def _log_points(self, run: StoredRun | NoRun, together: list[Operation]) -> None:
        points: list[Point] = []
        for operation in together:
            points += points_of(operation.content["values"], operation.content["step"], operation.at_ms)
        if not isinstance(run, NoRun):
            run.log_points(points)

    def _log_file(self, run: StoredRun | NoRun, path: Path, folder: str) -> None:
        if path.exists():
            run.log_file(path, folder)
            remove_folder(path.parent)
        elif not isinstance(run, NoRun) and not run.has_file(f"{folder}/{path.name}" if folder else path.name):
            raise _MissingFileError(f"{path} is missing")  # otherwise it was delivered, and the mark lags behind

    def _refuse(self, operation: Operation, error: Exception) -> None:
        """Keep an operation that the store will never take, and say so; what is of a refused run is kept in silence."""
        begin = Operation(0, 0, "begin", 0, {"store": self.store, "process": self._process})
        keep_refused(self.folder, begin, Refusal(self._findable(operation), reason_of(error)))
        if operation.kind == "open":
            self._refused_runs.add(operation.number)
        self.refused += 1
        if self.refused > SAID_REFUSALS or isinstance(error, _RefusedRunError):
            return
        if isinstance(error, _MissingFileError):
            self._say(f"a file that MLflow does not have either is noted in {self.folder / REFUSED}: {error}")
        else:
            self._say(
                f"MLflow refuses something of a run, which is kept in {self.folder / REFUSED}: {reason_of(error)}"
            )

    def _findable(self, operation: Operation) -> Operation:
        """Return an operation that can be delivered without that which has opened its run, if that is delivered."""
        run = operation.run
        if operation.kind == "open" or not isinstance(run, int) or run in self._refused_runs or run not in self._open:
            return operation
        opened = self._open[run]
        found_by = {name: opened.content[name] for name in ("experiment", "key")}
        return replace(operation, run={**found_by, "opened_ms": opened.at_ms})


class Sender:
    """A thread that delivers the outbox of this process, and first what dead processes have left beside it.

    Attributes:
        sent: How many operations it has delivered.
        failure: Why the store has not taken what waits of this process; None where the last call went well.
        left_failure: Why it has not taken what others have left; None where it has, or was not asked yet.
        is_disk_full: Whether the reason is a full disk, which does not pass by itself.
        opened: Takes the number of a run of this process and its id in the store.
    """

    def __init__(
        self, outbox: Outbox, connect: Callable[[], RunStore], store: RunStore | None = None, say: Warn = say_on_stderr
    ) -> None:
        """Make the thread; `start` starts it.

        Args:
            outbox: The outbox of this process.
            connect: Opens the store; called in the thread, again and again until it succeeds.
            store: The store where it is open already.
            say: Takes a line for the user.
        """
        self.sent = 0
        self.failure: str | None = None
        self.left_failure: str | None = None
        self.is_disk_full = False
        self.opened: Callable[[int, str], None] = lambda run, run_id: None  # noqa: ARG005
        self._outbox = outbox
        self._connect = connect
        self._store = store
        self._say_to_user = say
        self._own = Delivery(outbox.folder, outbox.log, say=self._say, opened=self._note_id)
        self._left: list[Path] | None = None
        self._foreign: list[str] = []
        self._later: list[Path] = []  # what others have left and the store has not taken
        self._later_at_s = 0.0
        self._later_pause_s = FIRST_PAUSE_S
        self._changed = threading.Condition()
        self._hurry = False
        self._ending = False
        self._idle = False
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something was appended to the outbox."""
        with self._changed:
            self._idle = False
            self._changed.notify_all()

    def close(self, patience_s: float) -> bool:
        """Wait until all is delivered, or nothing more has been for some seconds, and end the thread.

        Args:
            patience_s: Seconds in which the store may take nothing.

        Returns:
            Whether all of this process' outbox is delivered.
        """
        sent, now = self.sent, time.monotonic()
        deadline, say_at = now + patience_s, now + QUIET_S
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            while not self._idle and not self._is_vain() and time.monotonic() < deadline:
                self._changed.wait(min(1.0, patience_s))
                now = time.monotonic()
                if self.sent != sent:
                    sent, deadline = self.sent, now + patience_s
                if now >= say_at and not self._idle:
                    say_at = now + 10.0
                    self._say(self._progress(deadline - now))
            self._ending = True
            self._changed.notify_all()
            is_idle = self._idle
        if is_idle:
            self._thread.join()
        self._own.mark()
        return self._own.delivered == self._outbox.count

    def _is_vain(self) -> bool:
        """Return whether there is nothing to wait for.

        Nothing of this process waits, and the store does not take what others have left; or a disk is full.
        """
        has_failed = self.failure is not None or self.left_failure is not None
        return self.is_disk_full or (has_failed and self._own.delivered == self._outbox.count)

    def _progress(self, left_s: float) -> str:
        waiting = counted(self._outbox.count - self._own.delivered, "operation")
        if self.failure is None:
            return f"{waiting} on the way to MLflow"
        return f"{waiting} wait for MLflow, which does not answer ({self.failure}); {left_s:.0f} s more"

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._ending:
            try:
                sent = self._send()
            except Exception as error:  # whatever a store, or the network before it, may raise
                self._fail(error)
                self._rest(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if self.failure is not None:
                self._say("MLflow answers again, and gets what it missed")
            pause_s, self.failure, self.is_disk_full = FIRST_PAUSE_S, None, False
            self._note(sent)

    def _send(self) -> int:
        """Deliver some operations and return how many; 0 where nothing waits."""
        if self._store is None:
            self._store = self._connect()
        if self._left is None:
            self._left = [folder for folder in outboxes(self._outbox.folder.parent) if folder != self._outbox.folder]
            with suppress(OSError):  # of another user, perhaps
                sweep(self._outbox.folder.parent)
        if self._left:
            left, self._left = self._left, []
            self._send_all_left(left, self._store)
            self._say_foreign()
        sent = self._own.step(self._store)
        if not sent and self._later and time.monotonic() >= self._later_at_s:
            self._send_all_left(self._later, self._store)
        return sent

    def _send_all_left(self, folders: list[Path], store: RunStore) -> None:
        """Deliver what dead processes have left. What fails does not hold up what is logged now, and is said once."""
        failed = []
        for folder in folders:
            try:
                self._send_left(folder, store)
            except Exception as error:  # whatever a store, or the network before it, may raise
                failed.append(folder)
                if folder not in self._later:
                    self._say(f"MLflow does not take what waits in {folder} ({reason_of(error)})")
                self.left_failure = reason_of(error)
            else:
                if folder in self._later:
                    self._say(f"MLflow has taken what waited in {folder}")
        if not failed:
            self.left_failure = None
        self._later = failed
        self._later_at_s = time.monotonic() + self._later_pause_s
        self._later_pause_s = min(2 * self._later_pause_s, LONGEST_LEFT_PAUSE_S)

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads it any more
            self._say_to_user(line)

    def _note_id(self, run: int, run_id: str) -> None:
        self.opened(run, run_id)

    def _send_left(self, folder: Path, store: RunStore) -> None:
        """Deliver what a dead process has left for the same store."""
        with ExitStack() as held:
            try:
                held.enter_context(claimed(folder))
                delivery = Delivery(folder, say=self._say)
            except HeldError:
                return
            except (OSError, DamagedError) as error:  # of another user, perhaps
                self._say(f"what waits in {folder} is left there: {reason_of(error)}")
                return
            if delivery.store not in (self._own.store, None):
                self._foreign.append(waits_for_another(folder, delivery.store, self._own.store))
                return
            try:
                while not self._ending and (sent := delivery.step(store)):
                    self.sent += sent
                if not self._ending:
                    delivery.finish(store)
            except DamagedError as error:
                self._say(str(error))
            finally:
                delivery.mark()

    def _say_foreign(self) -> None:
        """Say once that something waits for another store: it may be this one, whose address has changed."""
        if self._foreign:
            more = len(self._foreign) - 1
            self._say(self._foreign[0] + (f"; {counted(more, 'other')} beside it likewise" if more else ""))

    def _note(self, sent: int) -> None:
        """Count what was sent; where nothing was left to send, wait until something is."""
        if not sent:
            self._own.shorten(self._outbox)
        with self._changed:
            self.sent += sent
            if not sent and self._own.delivered == self._outbox.count:
                self._idle = True
                self._changed.notify_all()
                while self._idle and not self._ending:
                    pause_s = max(0.0, self._later_at_s - time.monotonic()) if self._later else None
                    if pause_s == 0:
                        self._idle = False
                    else:
                        self._changed.wait(pause_s)

    def _fail(self, error: Exception) -> None:
        if self._store is not None:
            self._store.be_patient(error)
        first, self.failure = self.failure is None, reason_of(error)
        self.is_disk_full = is_disk_full(error)
        if first:
            what = "there is no space for MLflow's store" if self.is_disk_full else "MLflow does not answer"
            self._say(f"{what} ({self.failure}): what is logged waits in {self._outbox.folder.parent}")
        self._own.mark()

    def _rest(self, seconds: float) -> None:
        """Leave the store alone for a while; where a command waits for the end, for a moment at most."""
        end = time.monotonic() + seconds
        with self._changed:
            while not self._ending and (left := end - time.monotonic()) > 0:
                self._changed.wait(min(left, FIRST_PAUSE_S) if self._hurry else left)
                if self._hurry:
                    return
