"""A study whose folder is kept on a server too (`storage.path` on S3), so that any machine can go on with it.

The driver works in its own folder and sends what changes in it. A worker has a folder of its own on its node's disk,
with what it needs of its trial. Neither needs a folder that it has in common with others.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mis.errors import MisError
from mis.files import exclusive_lock, make_folder, remove_file, remove_folder
from mis.storage import messages as storage
from mis.storage.claim import (
    RUNNER,
    SESSION,
    check_kept_here,
    check_nobody_runs,
    claimed,
    is_part,
    sessions_here,
    sessions_there,
)
from mis.storage.path import scratch_folder
from mis.storage.remote import RemoteFolder, Say
from mis.storage.sender import AT_ONCE, FolderSender
from mis.train.checkpoint import Checkpoints
from mis.train.remote_checkpoints import INTERRUPTED_WAIT_S, send_checkpoints
from mis.tune.study import messages
from mis.tune.study.layout import FINISHED, STUDY_JSON, TRIALS
from mis.tune.study.store import StudyStore
from mis.tune.trial import Values

LOCK, UNSENT = "lock", ".unsent"
"""The lock of the folder here, and the file that is there while not all has been sent."""

HERE_ALONE = (LOCK, RUNNER, SESSION)
"""Files of the study's folder that are not sent with the others: `mis.storage.claim` writes the last two there."""

WORKERS_FILES = ("started.json", "steps", "trace.txt", "suggested.json", "values.json", "change.json", "cloned.json")
"""Files of a trial that are not sent with the driver's others: a worker writes them, or must see them at once."""

SUGGESTED = "suggested.json"
"""The object with the values for which a trial's checkpoints were made."""

STEPS_S = 10.0
"""Seconds between two notes of a trial's steps that the driver gets."""


def is_drivers(name: str) -> bool:
    """Return whether a file of a study, by its name from the study's folder, is the driver's to send and to fetch."""
    first, *rest = name.split("/")
    if first == TRIALS:
        return len(rest) == 2 and rest[1] not in WORKERS_FILES
    return not rest and first not in HERE_ALONE


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
    if not is_kept(remote, say):
        return
    here, there = sessions_here(path), sessions_there(remote, say)
    if is_part(there, here):
        return
    what = f"study {path.name}"
    if (path / STUDY_JSON).exists() and (not is_part(here, there) or not here or (path / UNSENT).exists()):
        raise storage.went_on_twice(what, path, remote.url)
    make_folder(path)
    with exclusive_lock(path / LOCK, messages.runs_already(path.name, "")):
        check_nobody_runs(remote, what, say)
        say(messages.fetched(path.name, remote.url))
        remote.patiently(lambda: _fetch(path, remote), say)
        _drop_unknown_trials(StudyStore.open(path))


def _fetch(path: Path, remote: RemoteFolder) -> None:
    """Make a folder what the server has; the sessions come last: with them it is whole."""
    names = [name for name in remote.list() if is_drivers(name)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: remote.get(name, path / name), names))
    for file in [file for file in path.rglob("*") if file.is_file()]:
        name = file.relative_to(path).as_posix()
        if is_drivers(name) and name not in names and not file.name.startswith("."):
            remove_file(file)
    (path / TRIALS).mkdir(exist_ok=True)
    remote.get(SESSION, path / SESSION)


def _drop_unknown_trials(store: StudyStore) -> None:
    """Delete trials that the journal does not know: they were sent, and the journal after them was not."""
    known = set(store.journal.numbers())
    for trial in store.folder.trials:
        if trial.number not in known:
            remove_folder(trial.path)


def is_kept(remote: RemoteFolder, say: Say) -> bool:
    """Return whether there is a study in a folder of the storage."""
    return remote.patiently(lambda: remote.entry(STUDY_JSON), say) is not None


def bring_back_all(folder: Path, remote: RemoteFolder, say: Say) -> None:
    """Fetch the studies that a stage of the pipeline, or a training with folds, may go on with.

    One that another process runs is passed over, and so is one whose results have been taken.
    """
    for name in remote.patiently(remote.folders, say):
        there = remote.below(name)
        study = _content(there, STUDY_JSON, say)
        if study is None or not (study.get("stage") or study.get("folds")):
            continue
        if remote.patiently(lambda there=there: there.entry(FINISHED), say) is not None:  # type: ignore[misc]
            continue
        try:
            bring_back(folder / name, there, say)
        except MisError as error:
            say(messages.passed_over(name, error))


@contextmanager
def kept_on_storage(store: StudyStore, say: Say) -> Iterator[StudyStore]:
    """Send what changes in a study's folder during the block; nothing is done for one that is kept here alone.

    Yields:
        The study, which knows which one of its name it is.

    Raises:
        MisError: The storage refuses, at the start, or the study is kept or runs elsewhere.
        WorkerError: It does not answer at the start for as long as is waited for it.
    """
    remote, what = store.remote, f"study {store.name}"
    check_kept_here(store.path, remote, what)
    if remote is None:
        yield store
        return
    with claimed(remote, store.path, what, say) as claim:
        store = replace(store, identity=claim.identity)
        for trial in store.folder.trials:  # of a study that was kept here alone
            send_checkpoints(Checkpoints(trial.path), store.checkpoints(trial.number), say)
        sender = FolderSender(
            store.path,
            remote,
            wanted=is_drivers,
            say=say,
            may_send=lambda: not claim.lost,
            unsent=store.path / UNSENT,
        )
        remote.patiently(sender.send, say)
        remove_file(store.path / UNSENT)
        sender.start()
        try:
            yield store
        except BaseException:
            sender.close(min(INTERRUPTED_WAIT_S, remote.wait_s))
            raise
        if not sender.close(remote.wait_s):
            say(messages.not_sent(store.name, remote.url))


@contextmanager
def for_worker(store: StudyStore, number: int, suggested: Values, say: Say) -> Iterator[StudyStore]:
    """Yield the study for the worker of one of its trials: in a folder of its node where it is kept on a server.

    Args:
        store: The study.
        number: The trial's number.
        suggested: The values that were suggested for it first: checkpoints that were made for others are deleted.
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
    with TemporaryDirectory(prefix=f"{store.name}-", dir=scratch_folder()) as name:
        own = replace(store, path=Path(name))
        folder = own.folder.trial(number)
        make_folder(folder.path)
        for path in (folder.values, folder.change, folder.cloned):
            remote.patiently(lambda path=path: remote.get(path.name, path), say)  # type: ignore[misc]
        steps = folder.steps.name
        sender = FolderSender(folder.path, remote, wanted=lambda name: name == steps, say=_say_nothing, every_s=STEPS_S)
        sender.start()
        try:
            yield own
        finally:
            sender.close(0.0)


def _say_nothing(line: str) -> None:
    """Leave it to the checkpoints to say that the storage is away."""


def _content(remote: RemoteFolder, name: str, say: Say) -> Any:  # noqa: ANN401 - whatever JSON has
    content = remote.patiently(lambda: remote.read(name), say)
    return None if content is None else json.loads(content)
