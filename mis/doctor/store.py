"""Whether MLflow's store answers and takes what is logged, and what waits for it. Nothing is left in it."""

import secrets
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mis.errors import MisError
from mis.machine.diagnosis import Diagnosis
from mis.machine.disks import Disk, find_disk
from mis.settings import Settings
from mis.track.outbox import (
    SYNC,
    DamagedError,
    HeldError,
    claimed,
    count_waiting,
    outboxes,
    read_refused,
    refused_outboxes,
)
from mis.track.provenance import UNKNOWN, versions
from mis.track.store import database_path, location_of, reason_of, tracking_uri
from mis.words import counted

SLOW_S = 2.0
"""Seconds of an answer from which on a store is called slow.

No training waits for it, but a search with many trials logs more than such a store takes, and its end waits for it.
"""

VERSION_S = 4.0
"""Seconds in which a server must say its version."""

BUSY_S = 5.0
"""Seconds in which another process must have ended its writing to a SQLite file."""


@dataclass(frozen=True)
class Store:
    """What was found of MLflow's store.

    Attributes:
        where: Its location, without a password.
        is_file: Whether it is a SQLite file.
        exists: Whether it is there; a file is made by the first command that records.
        answer_s: How long it took to list an experiment (s); None where it was not asked, or did not answer.
        refusal: Why it does not answer; "" where it does, or was not asked.
        write_refusal: Why it takes nothing; "" where it does, or was not asked.
        version: The version of MLflow on the server; `unknown` where it does not say.
        own_version: The version of MLflow here.
        disk: The disk of a file.
        is_offline: Whether it was not asked, as MIS_OFFLINE has it.
        waiting: How many operations wait for it whose processes have ended.
        refused: How many it has refused.
    """

    where: str
    is_file: bool
    exists: bool = True
    answer_s: float | None = None
    refusal: str = ""
    write_refusal: str = ""
    version: str = UNKNOWN
    own_version: str = UNKNOWN
    disk: Disk | None = None
    is_offline: bool = False
    waiting: int = 0
    refused: int = 0


def find_store(settings: Settings) -> Store:
    """Return what is found of the store that the settings name.

    Args:
        settings: The machine's settings.

    Raises:
        MisError: The tracking URI is of an unknown kind.
    """
    uri = tracking_uri(settings)
    is_file = uri.startswith("sqlite:")
    path = database_path(uri)
    waiting, refused = count_in_outboxes(settings.outboxes)
    known = Store(
        where=location_of(uri).partition(";")[0],
        is_file=is_file,
        exists=not is_file or path.is_file(),
        own_version=versions()["mlflow"],
        disk=find_disk(path.parent) if is_file else None,
        is_offline=settings.offline,
        waiting=waiting,
        refused=refused,
    )
    if settings.offline or not known.exists:
        return known
    from mis.track.mlflow import impatient, open_client

    impatient()
    try:
        client = open_client(uri)  # MLflow is imported
        begun = time.monotonic()
        client.search_experiments(max_results=1)
        answer_s = time.monotonic() - begun
    except Exception as error:  # whatever a store may raise
        cause = error.__cause__ if isinstance(error, MisError) else None
        return replace(known, refusal=reason_of(cause if isinstance(cause, Exception) else error))
    if is_file:
        return replace(known, answer_s=answer_s, write_refusal=_write_to_file(path), version=known.own_version)
    return replace(known, answer_s=answer_s, write_refusal=_write_to_server(client), version=_version_of(uri))


def _write_to_file(path: Path) -> str:
    """Return why a SQLite file cannot be written; "" where it can: a table is made in it, and taken back."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_S)) as database:
            database.isolation_level = None
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE mis_doctor (number INTEGER)")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return ""


def _write_to_server(client: Any) -> str:  # noqa: ANN401 - MLflow's, which `mis.track.mlflow` alone imports
    """Return why a server takes nothing; "" where it does.

    A registered model is made and deleted: of all that MLflow has, it alone is gone then. What a deleted experiment or
    run has been stays in the database.
    """
    name = f"mis-doctor-{secrets.token_hex(8)}"
    try:
        client.create_registered_model(name)
        client.delete_registered_model(name)
    except Exception as error:  # whatever a server, or the network before it, may raise
        return reason_of(error)
    return ""


def _version_of(uri: str) -> str:
    with suppress(OSError, ValueError), urllib.request.urlopen(f"{uri}/version", timeout=VERSION_S) as answer:  # noqa: S310 - tracking_uri has checked it
        text = answer.read(100).decode("ascii").strip()
        if text and text[0].isdigit():
            return str(text)
    return UNKNOWN


def count_in_outboxes(parent: Path) -> tuple[int, int]:
    """Return how many operations wait in the outboxes of dead processes, and how many were refused.

    Args:
        parent: The folder of the outboxes.
    """
    waiting = refused = 0
    for folder in outboxes(parent):
        with suppress(HeldError, OSError), claimed(folder):  # what a live process holds, it delivers
            waiting += count_waiting(folder)[0]
    for folder in refused_outboxes(parent):
        with suppress(DamagedError, OSError):
            refused += len(read_refused(folder))
    return waiting, refused


def judge_store(store: Store) -> list[Diagnosis]:
    """Return what there is to say of MLflow's store.

    Args:
        store: What was found of it.
    """
    return [_answer(store), *_file(store), *_waiting(store)]


def _answer(store: Store) -> Diagnosis:
    if store.is_offline:
        return Diagnosis(
            "ok", "MLflow", f"{store.where}: not asked (MIS_OFFLINE=1); what is logged waits in the outbox"
        )
    if trouble := _no_use(store):
        return trouble
    if store.answer_s is None:
        return Diagnosis("ok", "MLflow", f"{store.where}: not there yet, the first command that records makes it")
    found = f"{store.where} answers within {store.answer_s * 1000:.0f} ms and can be written"
    theirs, ours = store.version.partition(".")[0], store.own_version.partition(".")[0]
    if store.version != UNKNOWN and theirs != ours:
        return Diagnosis(
            "warning",
            "MLflow",
            f"{found}; it has MLflow {store.version}, and this process {store.own_version}",
            "take the same major version on both sides",
        )
    if store.answer_s > SLOW_S:
        return Diagnosis("warning", "MLflow", f"{found}, which is slow", "let it run nearer, or on a faster database")
    return Diagnosis("ok", "MLflow", f"{found}; MLflow {store.version}" + ("" if store.is_file else " there"))


def _no_use(store: Store) -> Diagnosis | None:
    """Return why nothing can be recorded in a store; None where it can."""
    if store.disk is not None and store.disk.refusal:
        return Diagnosis(
            "error",
            "MLflow",
            f"{store.where}: no file can be made beside it ({store.disk.refusal})",
            "make space, or name another store in MLFLOW_TRACKING_URI",
        )
    if store.refusal:
        return Diagnosis(
            "error",
            "MLflow",
            f"{store.where} does not answer: {store.refusal}",
            "start it, correct MLFLOW_TRACKING_URI, or keep what is logged in the outbox with MIS_OFFLINE=1",
        )
    if store.write_refusal:
        return Diagnosis(
            "error",
            "MLflow",
            f"{store.where} answers, and takes nothing: {store.write_refusal}",
            "make it writable for this user, or keep what is logged in the outbox with MIS_OFFLINE=1",
        )
    return None


def _file(store: Store) -> Iterator[Diagnosis]:
    """Yield that a SQLite file is where it may be damaged: its locks are those of the file system."""
    if store.disk is not None and store.disk.is_shared:
        yield Diagnosis(
            "warning",
            "MLflow",
            f"{store.where} is on {store.disk.kind}: SQLite files are damaged there where two hosts write at "
            "once and locks are lost",
            "start `mlflow server` on one host and name it in MLFLOW_TRACKING_URI",
        )


def _waiting(store: Store) -> Iterator[Diagnosis]:
    if store.waiting:
        waits = f"{counted(store.waiting, 'operation')} of processes that have ended wait to be delivered"
        yield Diagnosis("warning", "outbox", waits, f"`{SYNC}`; the next command delivers them, too")
    if store.refused:
        was = f"{counted(store.refused, 'operation')} that MLflow has refused"
        yield Diagnosis("warning", "outbox", was, f"`{SYNC} --refused` tries again")
    if not store.waiting and not store.refused:
        yield Diagnosis("ok", "outbox", "nothing waits")
