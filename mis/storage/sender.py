"""What changes in a folder is sent to the storage, by a thread of its own: nobody waits while the storage is away."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mis.storage import messages
from mis.storage.remote import AGAIN_S, AwayError, RefusedError, RemoteFolder, Say

LOOK_S = 1.0
"""Seconds between two looks at the folder; more where a look takes long."""

SHARE = 0.1
"""Of its time a sender looks and sends for at most about so much, where it is not waited for."""

AT_ONCE = 8
"""Files that are sent at once: most are small, and wait for the server's answer."""

MOST_S = 10.0
"""Seconds between two looks at most, also where one takes long or the server is away."""

State = tuple[int, int]
"""When a file was changed last, in ns, and its size."""


class FolderSender:
    """Sends the files of a folder that are there whole, as `mis.files` writes them, and deletes what is gone.

    Only what it has sent is deleted on the storage. Files that grow line by line, which end in `.log`, are looked at
    first and sent last, up to where they were then: what they tell of the others is there before.

    Attributes:
        folder: The folder.
        remote: Where its files are sent.
        wanted: Whether a file is sent, by its name from the folder, e.g. `epoch-0001/last.npz`.
        last: Files of this name are sent after the others: with them a folder of files is whole.
        owns_folders: Whether a folder that is gone is deleted there as a whole, which takes fewer requests: nobody else
            has put anything there.
        say: Takes a line when the storage ceases to answer, and one when it answers again.
        every_s: Seconds between two looks, at least.
        may_send: Whether this process may still write there.
        unsent: A file that is there while not all has been sent; None makes none.
    """

    def __init__(
        self,
        folder: Path,
        remote: RemoteFolder,
        *,
        wanted: Callable[[str], bool],
        last: str = "",
        owns_folders: bool = False,
        say: Say,
        every_s: float = LOOK_S,
        may_send: Callable[[], bool] = lambda: True,
        unsent: Path | None = None,
    ) -> None:
        self.folder = folder
        self.remote = remote
        self.wanted = wanted
        self.last = last
        self.owns_folders = owns_folders
        self.say = say
        self.every_s = every_s
        self.may_send = may_send
        self.unsent = unsent
        self._sent: dict[str, State] = {}
        self._is_away = False
        self._looking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sender")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def has(self, name: str) -> None:
        """Note that the storage has a file as it is here."""
        state = _state(self.folder / name)
        if state is not None:
            self._sent[name] = state

    def send(self) -> None:
        """Send what has changed, while who calls waits.

        Raises:
            AwayError: The storage does not answer.
            RefusedError: It refuses.
        """
        with self._looking:
            self._send(dict(self._look()))

    def flush(self) -> None:
        """Send what has changed, where the storage answers: while it does not, nobody waits for it."""
        if not self._is_away:
            self._send_what_changed()

    def close(self, within_s: float) -> bool:
        """Send what is left, and end; return whether all of it was sent within so many seconds."""
        self._ended.set()
        deadline = time.monotonic() + within_s
        if self._thread.ident is not None:
            self._thread.join(max(1.0, within_s))
            if self._thread.is_alive():
                return False
        while not self._send_what_changed():
            if time.monotonic() > deadline:
                return False
            time.sleep(min(AGAIN_S, max(0.05, deadline - time.monotonic())))
        return True

    def _run(self) -> None:
        wait = self.every_s
        while not self._ended.wait(wait):
            begun = time.monotonic()
            self._send_what_changed()
            wait = max(self.every_s, min(MOST_S, (time.monotonic() - begun) * (1 / SHARE - 1)))

    def _send_what_changed(self) -> bool:
        """Send what has changed since it was sent; return whether the storage has all of it."""
        with self._looking:
            if not self.may_send():
                return False
            try:
                self._send(dict(self._look()))
            except (AwayError, RefusedError, OSError) as error:
                if not self._is_away:
                    self.say(_line_of(error)(self.remote.url, str(error)))
                    if self.unsent is not None:
                        with suppress(OSError):
                            self.unsent.touch()
                self._is_away = True
                return False
            if self._is_away:
                self.say(messages.answers_again(self.remote.url))
                if self.unsent is not None:
                    self.unsent.unlink(missing_ok=True)
            self._is_away = False
            return True

    def _send(self, found: dict[str, State]) -> None:
        changed = [name for name, state in found.items() if self._sent.get(name) != state]

        def put(name: str) -> None:
            try:
                self.remote.put(self.folder / name, name, found[name][1] if _grows(name) else None)
            except FileNotFoundError:  # it has been deleted since
                return
            self._sent[name] = found[name]

        logs, last = list(filter(_grows, changed)), [name for name in changed if name.rpartition("/")[2] == self.last]
        others = [name for name in changed if name not in {*logs, *last}]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for part in (others, last, logs):
                list(pool.map(put, part))
        gone = self._sent.keys() - found.keys()
        if self.owns_folders:
            there = {name.rpartition("/")[0] for name in found}
            for folder in sorted({name.rpartition("/")[0] for name in gone} - {"", *there}):
                self.remote.delete_folder(folder)
                for name in [name for name in gone if name.rpartition("/")[0] == folder]:
                    del self._sent[name]
        for name in sorted(gone & self._sent.keys()):
            self.remote.delete([name])
            del self._sent[name]

    def _look(self) -> Iterator[tuple[str, State]]:
        names = sorted(self._names(), key=lambda name: not _grows(name))
        for name in names:
            state = _state(self.folder / name)
            if state is not None:
                yield name, state

    def _names(self) -> Iterator[str]:
        for root, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for file in files:
                name = (Path(root) / file).relative_to(self.folder).as_posix()
                if not file.startswith(".") and self.wanted(name):
                    yield name


def _line_of(error: Exception) -> Callable[[str, str], str]:
    """Return what is said where something cannot be sent."""
    if isinstance(error, AwayError):
        return messages.does_not_answer
    return messages.refuses_now if isinstance(error, RefusedError) else messages.cannot_be_read


def _grows(name: str) -> bool:
    return name.endswith(".log")


def _state(path: Path) -> State | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
