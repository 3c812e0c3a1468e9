"""What the facts of a machine mean for trainings and searches: pure functions from facts to diagnoses."""

from collections.abc import Iterator
from math import floor

from mis.machine.diagnosis import Diagnosis
from mis.machine.disks import Disk
from mis.machine.facts import CHECKPOINTS, LOGGED, RECORDS, TEMPORARY, Machine

MIB, GIB = 2**20, 2**30

LEAST_FILES = 4096
"""Files that a process of Ray must be able to have open; Ray warns below it, and recommends `ENOUGH_FILES`.

Each node's own process holds some for each worker, and a search has a worker for each trial at once.
"""

ENOUGH_FILES = 8192

LEAST_MEMORY = 2 * GIB
"""Free memory below which there is none for a trial: TensorFlow and its first network take about 1 GB in a process, the
driver has another, and Ray ends processes where 95 % of the memory are used."""

NO_SPACE, LITTLE_SPACE = 100 * MIB, 2 * GIB
"""Free space below which nothing can be begun, and below which a search may fill the disk.

A network of 31 million weights, as nnU-Net's, has 370 MB with the two moments of Adam. Each trial that runs has two
checkpoints and its best model; Ray's logs are among the temporary files.
"""

WITHOUT_LOCKS = "two drivers of one study on two hosts would each take themselves for the only one"
"""What comes of a file system whose locks stay on a host, as the end of a sentence."""

GET_LOCKS = (
    "start each study from one host, or mount the folder so that locks reach the server (NFS: without nolock and "
    "local_lock)"
)
"""What to do about it."""

FEW_FILES = 1000
"""Files that can still be made, below which a search runs out of them."""

RAY_FULL = 0.95
"""Of the disk with its temporary files: where more is used, Ray puts no object there that has no place in memory."""


def judge_machine(machine: Machine, *, store_bytes: int, is_node: bool = False) -> list[Diagnosis]:
    """Return what there is to say of a machine, at least a line for each of its parts.

    Args:
        machine: Its facts.
        store_bytes: The size of the object store that Ray has there, or will have.
        is_node: Whether it is a node of a cluster that runs: its object store is there, and its limits are final. A
            driver raises its own limit of open files.
    """
    return [
        _cores(machine),
        _memory(machine),
        _shared_memory(machine, store_bytes, is_node=is_node),
        _open_files(machine, is_node=is_node),
        *_disks(machine),
    ]


def _cores(machine: Machine) -> Diagnosis:
    here = f"{machine.host}: {machine.cores} cores"
    if machine.quota is not None and machine.quota < machine.cores:
        return Diagnosis(
            "warning",
            "cores",
            f"{here}, of which a quota allows the time of {machine.quota:g}",
            f"start searches with MIS_DEVICES={max(1, floor(machine.quota))} where cores are the devices, or raise the "
            "container's quota",
        )
    return Diagnosis("ok", "cores", here)


def _memory(machine: Machine) -> Diagnosis:
    found = f"{machine.host}: {size(machine.free_bytes)} free of {size(machine.memory_bytes)}"
    if machine.free_bytes < LEAST_MEMORY:
        return Diagnosis(
            "warning",
            "memory",
            f"{found}; a trial's process takes about 1 GiB",
            "end what is not needed, or ask the cluster's manager for more memory",
        )
    return Diagnosis("ok", "memory", found)


def _shared_memory(machine: Machine, store_bytes: int, *, is_node: bool) -> Diagnosis:
    shared = machine.shared
    if shared is None:
        return Diagnosis(
            "warning",
            "shared memory",
            f"{machine.host}: no /dev/shm; Ray takes the disk instead",
            "mount a tmpfs there",
        )
    there = shared.total_bytes if is_node else shared.free_bytes
    kind = "" if is_node else " free"
    found = f"{machine.host}: {size(there)}{kind} in /dev/shm"
    if shared.refusal:
        return Diagnosis("error", "shared memory", f"{found}, not writable: {shared.refusal}", "let users write there")
    if there < store_bytes:
        return Diagnosis(
            "warning",
            "shared memory",
            f"{found}, less than the {size(store_bytes)} of Ray's object store, which goes to the disk then",
            f"enlarge it, in a container with --shm-size={2 * store_bytes // MIB}m, or remove files there",
        )
    return Diagnosis("ok", "shared memory", found)


def _open_files(machine: Machine, *, is_node: bool) -> Diagnosis:
    limit = machine.open_files if is_node else machine.most_open_files
    found = f"{machine.host}: a process may open {limit} files"
    if limit < LEAST_FILES:
        return Diagnosis(
            "warning",
            "open files",
            f"{found}, less than the {LEAST_FILES} below which connections of Ray fail",
            f"ulimit -n {ENOUGH_FILES} before {'`ray start`' if is_node else 'the command'}",
        )
    return Diagnosis("ok", "open files", found)


def _disks(machine: Machine) -> Iterator[Diagnosis]:
    for name, disk in machine.disks.items():
        yield _space(machine.host, name, disk)
    checkpoints = machine.disks.get(CHECKPOINTS)
    if checkpoints is not None and checkpoints.loses_locks:
        how = f"{checkpoints.kind} with {', '.join(sorted(checkpoints.options))}"
        yield Diagnosis(
            "warning",
            CHECKPOINTS,
            f"{machine.host}: {checkpoints.folder} is on {how}: locks stay on this host, and {WITHOUT_LOCKS}",
            GET_LOCKS,
        )


def _space(host: str, name: str, disk: Disk) -> Diagnosis:
    kind = f" ({disk.kind})" if disk.kind else ""
    found = f"{host}: {size(disk.free_bytes)} free of {size(disk.total_bytes)} at {disk.folder}{kind}"
    if name == RECORDS and not disk.refusal:  # they are read
        return Diagnosis("ok", name, found)
    if trouble := _no_room(disk):
        return Diagnosis("error", name, f"{found}, {trouble}", _another_place(name))
    if disk.free_bytes < LITTLE_SPACE:
        return Diagnosis("warning", name, f"{found}, which a search may fill", _another_place(name))
    if name == TEMPORARY and disk.free_bytes < (1 - RAY_FULL) * disk.total_bytes:
        return Diagnosis(
            "warning",
            name,
            f"{found}, more than {RAY_FULL:.0%} are used: Ray puts no more objects there",
            _another_place(name),
        )
    return Diagnosis("ok", name, found)


def _no_room(disk: Disk) -> str:
    """Return why nothing can be begun on a disk; "" where there is room."""
    if disk.refusal:
        return f"not writable: {disk.refusal}"
    if disk.free_bytes < NO_SPACE:
        return "too little to begin"
    if disk.free_files is not None and disk.free_files < FEW_FILES:
        return f"but only {disk.free_files} more files"
    return ""


def _another_place(name: str) -> str:
    """Return what to do about a folder in which there is no room."""
    if name in (CHECKPOINTS, LOGGED):
        return "make space, or keep checkpoints/ and mlruns/ elsewhere with MIS_ROOT"
    return "make space, or name another folder in TMPDIR"


def size(number: float) -> str:
    """Return a number of bytes as it is shown.

    >>> size(64 * MIB), size(23.5 * GIB)
    ('64 MiB', '23.5 GiB')
    """
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.0f} MiB"
