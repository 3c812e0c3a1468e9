"""All that is looked at, from the settings to the diagnoses."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mis.doctor.cluster import STORAGE, diagnose_cluster
from mis.doctor.gpus import ask_tensorflow, judge_gpus
from mis.doctor.store import find_store, judge_store
from mis.errors import MisError
from mis.machine.diagnosis import Diagnosis
from mis.machine.disks import find_disk
from mis.machine.facts import CHECKPOINTS, LOGGED, RECORDS, find_machine
from mis.machine.judge import judge_machine
from mis.settings import Settings
from mis.storage.messages import advice
from mis.storage.remote import RemoteFolder, probe
from mis.track.provenance import UNKNOWN, git_commit
from mis.train.cluster import OBJECT_STORE_BYTES
from mis.train.installation import find_installation, judge_own


def diagnose(settings: Settings) -> Iterator[Diagnosis]:
    """Yield what is found, one thing after the other, from the versions to the records.

    Args:
        settings: The machine's settings.
    """
    with ThreadPoolExecutor(1) as beside:
        gpus = beside.submit(ask_tensorflow)  # it takes the longest
        own = find_installation()
        yield from judge_own(own)
        yield _commit(settings.workspace)
        on_nodes = {CHECKPOINTS: settings.checkpoints, RECORDS: settings.records}
        machine = find_machine({**on_nodes, LOGGED: settings.outboxes})
        # On a cluster Ray's object stores are on its nodes.
        yield from judge_machine(machine, store_bytes=0 if settings.ray_address else OBJECT_STORE_BYTES)
        yield judge_gpus(machine.host, gpus.result())
    remote = RemoteFolder(settings.storage) if settings.storage and settings.is_remote else None
    yield from diagnose_cluster(settings.ray_address, own, on_nodes, remote)
    yield from _store(settings)
    yield from _storage(settings)
    yield _records(settings.records)


def _storage(settings: Settings) -> Iterator[Diagnosis]:
    """Yield whether this machine can write to the storage and read it again."""
    if settings.storage is None:
        yield Diagnosis("ok", STORAGE, "storage.path is null: checkpoints and studies are in the project's folder")
    elif settings.shared_folder is not None:
        yield _shared(settings.shared_folder)
    else:
        yield _remote(RemoteFolder(settings.storage))


def _shared(folder: Path) -> Diagnosis:
    for path in (folder, folder / "records"):  # checkpoints are looked at on each node
        disk = find_disk(path)
        if disk.refusal:
            do = "let this user write there, or name another folder in storage.path"
            return Diagnosis("error", STORAGE, f"{disk.folder} cannot be written to: {disk.refusal}", do)
    return Diagnosis("ok", STORAGE, f"checkpoints, studies and records are in {folder}, which can be written to")


def _remote(remote: RemoteFolder) -> Diagnosis:
    begun = time.monotonic()
    reason = probe(remote)
    if reason:
        return Diagnosis("error", STORAGE, f"{remote.url} cannot be used: {reason}", advice(reason))
    took = time.monotonic() - begun
    return Diagnosis("ok", STORAGE, f"{remote.url} takes an object and returns it, in {took:.1f} s")


def _commit(workspace: Path) -> Diagnosis:
    commit = git_commit(workspace)
    if commit == UNKNOWN:
        return Diagnosis("ok", "commit", f"{workspace} is not in git: runs are recorded without a commit")
    changed = ", with changes that are not committed" if commit.endswith("-dirty") else ""
    return Diagnosis("ok", "commit", f"{commit.removesuffix('-dirty')}{changed}")


def _store(settings: Settings) -> Iterator[Diagnosis]:
    try:
        store = find_store(settings)
    except MisError as error:
        yield Diagnosis("error", "MLflow", error.broken, error.do)
        return
    yield from judge_store(store)


def _records(folder: Path) -> Diagnosis:
    if folder.is_dir():
        return Diagnosis("ok", "records", f"there are some at {folder}")
    return Diagnosis("ok", "records", f"none yet at {folder}: `dvc repro` makes them")
