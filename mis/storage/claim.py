"""Who goes on with what is kept on a server: one process at a time, from what the last one has left.

A server has no locks. So a process writes down that it goes on (`session.json`), with all that went on before it, and
shows every `SIGN_S` seconds that it lives (`runner`). Who comes later waits for such a sign, and is refused where there
is one. A process that finds another one's session in place of its own was taken for dead, and ends.
"""

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mis.files import read_json, remove_file, write_json
from mis.storage import messages
from mis.storage.remote import AwayError, RefusedError, RemoteFolder, Say

SESSION = "session.json"
"""The file, here and there, that has the sessions so far and says who has the last one."""

RUNNER = "runner"
"""The object that is written again and again while a process goes on."""

SIGN_S = 10.0
"""Seconds between two signs of life."""

SILENT_S = 3 * SIGN_S
"""Seconds without one after which a process is taken for dead."""

ENOUGH_SIGNS = 2
"""Signs that a living process gives in this time; one alone may be the last one of a process that has ended."""

SETTLE_S = 2.0
"""Seconds after which who has begun looks whether another one has begun at the same time."""


def sessions_here(folder: Path) -> list[str]:
    """Return the sessions that a folder of this machine knows of, the last one at the end."""
    path = folder / SESSION
    return _sessions(path.read_bytes() if path.exists() else None)


def sessions_there(remote: RemoteFolder, say: Say) -> list[str]:
    """Return the sessions that the server knows of; see `RemoteFolder.patiently` for the errors."""
    return _sessions(remote.patiently(lambda: remote.read(SESSION), say))


def _sessions(content: bytes | None) -> list[str]:
    return [] if content is None else list(json.loads(content)["sessions"])


def url_of(folder: Path) -> str | None:
    """Return where the content of a folder of this machine is kept; None where it is kept here alone."""
    path = folder / SESSION
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found.get("url")


def is_part(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the second sessions are those of the first, and perhaps others after them.

    >>> is_part(["a"], ["a", "b"]), is_part(["a", "c"], ["a", "b"])
    (True, False)
    """
    return list(second[: len(first)]) == list(first)


def check_nobody_runs(remote: RemoteFolder, what: str, say: Say) -> None:
    """Refuse to go on where a process shows that it lives; one that was killed shows nothing, and is forgotten.

    Args:
        remote: What is gone on with.
        what: What it is, for people.
        say: Takes a line for people.

    Raises:
        MisError: A process lives.
    """
    seen = remote.patiently(lambda: remote.entry(RUNNER), say)
    if seen is None:
        return
    who = (remote.patiently(lambda: remote.read(RUNNER), say) or b"").decode()
    if _is_dead(who):
        remote.patiently(lambda: remote.delete([RUNNER]), say)
        return
    say(messages.waits_for_sign_of_life(what, who, SILENT_S))
    deadline, signs = time.monotonic() + SILENT_S, 0
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SIGN_S))
        now = remote.patiently(lambda: remote.entry(RUNNER), say)
        if now is None:  # it has ended in order
            return
        signs += now != seen
        seen = now
        if signs == ENOUGH_SIGNS:
            raise messages.runs_elsewhere(what, who)
    remote.patiently(lambda: remote.delete([RUNNER]), say)


def end_this_process() -> None:
    """End this process in order, as SIGTERM does."""
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Claim:
    """That this process goes on with what is kept in a folder of the server.

    Attributes:
        remote: The folder there.
        folder: The folder here, which has the sessions that it knows of.
        what: What is gone on with, for people.
        say: Takes a line for people.
        on_lost: Is called, from another thread, when another process has gone on.
        sessions: The sessions so far; the last one is this one.
        lost: Whether another process has gone on, so that nothing may be written any more.
    """

    remote: RemoteFolder
    folder: Path
    what: str
    say: Say
    on_lost: Callable[[], None] = end_this_process
    sessions: list[str] = field(default_factory=list)
    lost: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def identity(self) -> str:
        """The first session: with it two things of the same name are told apart."""
        return self.sessions[0]

    def take(self, before: Sequence[str] | None = None) -> None:
        """Go on from the sessions that this machine knows of, or from others.

        Args:
            before: The sessions that this one goes on from; by default those that the folder here knows of.

        Raises:
            MisError: Another process lives, or has gone on from elsewhere.
        """
        before = sessions_here(self.folder) if before is None else list(before)
        if not is_part(sessions_there(self.remote, self.say), before):
            raise messages.went_on_twice(self.what, self.folder, self.remote.url)
        check_nobody_runs(self.remote, self.what, self.say)
        self.sessions = [*before, secrets.token_hex(8)]
        content = {"sessions": self.sessions, "process": _process(), "url": self.remote.url}
        path = self.folder / SESSION
        former = read_json(path) if path.exists() else None
        write_json(path, content)
        self.remote.patiently(self._write, self.say)
        time.sleep(SETTLE_S)
        if sessions_there(self.remote, self.say) != self.sessions:
            # This session has written nothing: later on, this machine goes on from where the other one came to.
            if former is None:
                remove_file(path)
            else:
                write_json(path, former)
            raise messages.runs_elsewhere(self.what, "a process that has begun at the same time")
        threading.Thread(target=self._show, daemon=True, name="sign of life").start()

    def release(self) -> None:
        """End in order: nobody needs to wait for a sign of life."""
        self._ended.set()
        if not self.lost:
            with suppress(AwayError, RefusedError):
                self.remote.delete([RUNNER])

    def _write(self) -> None:
        self.remote.put(self.folder / SESSION, SESSION)
        self.remote.write(_process().encode(), RUNNER)

    def _show(self) -> None:
        while not self._ended.wait(SIGN_S):
            try:
                there = _sessions(self.remote.read(SESSION))
                if there and there != self.sessions:
                    self.lost = True
                    self.say(messages.taken_over(self.what))
                    self.on_lost()
                    return
                self.remote.write(_process().encode(), RUNNER)
            except (AwayError, RefusedError):
                continue


@contextmanager
def claimed(
    remote: RemoteFolder, folder: Path, what: str, say: Say, before: Sequence[str] | None = None
) -> Iterator[Claim]:
    """Go on with what is kept in a folder of the server during the block; see `Claim`."""
    claim = Claim(remote, folder, what, say)
    claim.take(before)
    try:
        yield claim
    finally:
        claim.release()


def check_kept_here(folder: Path, remote: RemoteFolder | None, what: str) -> None:
    """Refuse to go on in another place than a folder's content is kept in.

    Raises:
        MisError: It is kept elsewhere.
    """
    url, given = url_of(folder), None if remote is None else remote.url
    if url is not None and url != given:
        raise messages.kept_at(what, url, given)


def _process() -> str:
    return f"process {os.getpid()} on {os.uname().nodename}"


def _is_dead(process: str) -> bool:
    """Return whether a process was one of this machine, and is no more."""
    words = process.split()
    return len(words) == 4 and words[3] == os.uname().nodename and not psutil.pid_exists(int(words[1]))
