"""A study whose folder is kept on a server too (`storage.path` on S3), so that any machine can go on with it.

The driver works in its own folder and sends what changes in it. A worker has a folder of its own on its node's disk,
with what it needs of its trial. Neither needs a folder that it has in common with others.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mis.files import make_folder, new_folder, read_json, write_json
from mis.storage.path import scratch_folder
from mis.storage.remote import AwayError, Entry, RefusedError, RemoteFolder, Say
from mis.storage.sender import SIGN_S, FolderSender
from mis.tune.study import messages
from mis.tune.study.layout import STUDY_JSON, TRIALS
from mis.tune.study.store import StudyStore
from mis.tune.trial import Values

SESSION = "session.json"
"""The file that says how often the study was gone on with, and which process did so last."""

RUNNER, LOCK = "runner", "lock"
"""The file that is sent again and again while a process runs the study, and its lock, which stays here."""

WORKERS_FILES = ("started.json", "steps", "trace.txt", "suggested.json", "values.json", "change.json", "cloned.json")
"""Files of a trial that are not sent with the driver's others: a worker writes them, or a worker must see them at
once."""

SUGGESTED = "suggested.json"
"""The file with the values for which a trial's checkpoints were made."""


def is_drivers(name: str) -> bool:
    """Return whether a file of a study, by its name from the study's folder, is the driver's to send and to fetch."""
    first, *rest = name.split("/")
    if first == TRIALS:
        return len(rest) == 2 and rest[1] not in WORKERS_FILES
    return not rest and first != LOCK


def bring_back(path: Path, remote: RemoteFolder, say: Say) -> None:
    """Fetch a study that another machine has begun, or has gone on with since.

    Args:
        path: The study's folder here; it need not be there.
        remote: Where it is kept; it need not be there either.
        say: Takes a line for people.

    Raises:
        MisError: Another process runs it, it went on here and elsewhere, or the storage refuses.
        WorkerError: The storage does not answer for as long as is waited for it.
    """
    there = _session(remote.patiently(lambda: remote.read(SESSION), say))
    here = _session((path / SESSION).read_bytes() if (path / SESSION).exists() else None)
    if there == here or there is None:
        return
    _check_nobody_runs(path.name, remote, say)
    if here is not None and here["number"] == there["number"]:
        raise messages.went_on_twice(path, remote.url)
    if here is not None and here["number"] > there["number"]:
        return
    say(messages.fetched(path.name, remote.url))

    def fetch() -> None:
        with new_folder(path) as unfinished:
            for name in remote.list():
                if is_drivers(name) and name != RUNNER:
                    remote.get(name, unfinished / name)
            (unfinished / TRIALS).mkdir(exist_ok=True)

    remote.patiently(fetch, say)


def bring_back_all(folder: Path, remote: RemoteFolder, say: Say) -> None:
    """Fetch the studies that are kept on the storage and are not in a folder of studies."""
    found = remote.patiently(remote.list, say)
    for name in sorted({name.partition("/")[0] for name in found if name.endswith(f"/{STUDY_JSON}")}):
        if not (folder / name).exists():
            bring_back(folder / name, remote.below(name), say)


def _session(content: bytes | None) -> dict[str, Any] | None:
    return None if content is None else dict(json.loads(content))


def _check_nobody_runs(name: str, remote: RemoteFolder, say: Say) -> None:
    """Refuse to go on with a study whose process shows that it lives; one that was killed shows nothing."""

    def sign() -> Entry | None:
        return remote.patiently(remote.list, say).get(RUNNER)

    first = sign()
    if first is None:
        return
    who = (remote.patiently(lambda: remote.read(RUNNER), say) or b"").decode()
    say(messages.waits_for_sign_of_life(name, who, 2 * SIGN_S))
    deadline = time.monotonic() + 2 * SIGN_S
    while time.monotonic() < deadline:
        time.sleep(1)
        now = sign()
        if now is None:  # it has ended in order
            return
        if now != first:
            raise messages.runs_already(name, who)


@contextmanager
def kept_on_storage(store: StudyStore, say: Say) -> Iterator[None]:
    """Send what changes in a study's folder during the block; nothing is done for one that is kept here alone.

    Raises:
        MisError: The storage refuses, at the start.
        WorkerError: It does not answer at the start for as long as is waited for it.
    """
    if store.remote is None:
        yield
        return
    known = read_json(store.path / SESSION) if (store.path / SESSION).exists() else {"number": 0}
    process = f"process {os.getpid()} on {os.uname().nodename}"
    write_json(store.path / SESSION, {"number": known["number"] + 1, "id": secrets.token_hex(8), "process": process})
    sender = FolderSender(store.path, store.remote, wanted=is_drivers, say=say, sign_of_life=RUNNER)
    store.remote.patiently(sender.send, say)
    sender.start()
    try:
        yield
    except BaseException:
        _leave(store.remote, sender, min(INTERRUPTED_WAIT_S, store.remote.wait_s))
        raise
    if not _leave(store.remote, sender, store.remote.wait_s):
        say(messages.not_sent(store.name, store.remote.url))


def _leave(remote: RemoteFolder, sender: FolderSender, within_s: float) -> bool:
    """Send what is left, and take back the sign of life; return whether all of it was sent."""
    sent = sender.close(within_s)
    if sent:
        with suppress(AwayError, RefusedError):
            remote.delete([RUNNER])
    return sent


def is_kept(remote: RemoteFolder, say: Say) -> bool:
    """Return whether there is a study in a folder of the storage."""
    return remote.patiently(lambda: remote.read(SESSION), say) is not None


INTERRUPTED_WAIT_S = 10.0
"""Seconds that a process which is interrupted waits until the study's files are sent."""


@contextmanager
def on_this_node(store: StudyStore, number: int, suggested: Values, say: Say) -> Iterator[StudyStore]:
    """Yield the study for the worker of one of its trials: in a folder of this node where it is kept on a server.

    Args:
        store: The study.
        number: The trial's number.
        suggested: The values that it was begun with: checkpoints that were made for others are deleted.
        say: Takes a line for people.

    Raises:
        MisError: The storage refuses.
        WorkerError: It does not answer for as long as is waited for it.
    """
    remote = store.remote_trial(number)
    if remote is None:
        yield store
        return
    there = _content(remote, SUGGESTED, say)
    if there is not None and there != dict(suggested):
        remote.patiently(lambda: remote.delete(remote.list()), say)
    if there != dict(suggested):
        remote.patiently(lambda: remote.write(json.dumps(dict(suggested)).encode(), SUGGESTED), say)
    base = scratch_folder() / "studies"
    make_folder(base)
    own = StudyStore(base / f"{store.name}-{os.getpid()}", store.params, store.remote)
    folder = own.folder.trial(number)
    shutil.rmtree(folder.path, ignore_errors=True)
    make_folder(folder.path)
    for path in (folder.values, folder.change, folder.cloned):
        remote.patiently(lambda path=path: remote.get(path.name, path), say)  # type: ignore[misc]
    sender = FolderSender(
        folder.path, remote, wanted=lambda name: name == folder.steps.name, say=_quiet, every_s=STEPS_S
    )
    sender.start()
    try:
        yield own
    finally:
        sender.close(0.0)
        shutil.rmtree(own.path, ignore_errors=True)


STEPS_S = 10.0
"""Seconds between two notes of a trial's steps that the driver gets."""


def _quiet(line: str) -> None:
    """Leave it to the checkpoints to say that the storage is away."""


def _content(remote: RemoteFolder, name: str, say: Say) -> Any:  # noqa: ANN401 - whatever JSON has
    content = remote.patiently(lambda: remote.read(name), say)
    return None if content is None else json.loads(content)
