"""The facts of one machine, as a process on it finds them: this one's, and on each node of a cluster its own."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mis.machine.disks import Disk, find_disk
from mis.machine.limits import core_quota, memory, open_files
from mis.settings import cores

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux has it

CHECKPOINTS, RECORDS, LOGGED, TEMPORARY = "checkpoints", "records", "MLflow's files", "temporary files"
"""What is in a folder that is used."""


@dataclass(frozen=True)
class Machine:
    """What a machine gives a process.

    Attributes:
        host: The machine's name.
        cores: The cores that the process may run on.
        quota: How many cores' time it may use; None where no quota limits it.
        memory_bytes: The memory that the process may have together with others.
        free_bytes: What is free of it.
        open_files: How many files a process may have open.
        most_open_files: To how many it may raise that by itself.
        shared: The memory that processes share; None where there is none.
        disks: The file system of each folder that is used, by what is there, as `CHECKPOINTS`.
    """

    host: str
    cores: int
    quota: float | None
    memory_bytes: int
    free_bytes: int
    open_files: int
    most_open_files: int
    shared: Disk | None
    disks: Mapping[str, Disk]


def find_machine(folders: Mapping[str, Path]) -> Machine:
    """Return the facts of the machine that this process is on.

    Args:
        folders: The folders that are used, by what is there, beside that of temporary files.
    """
    total, free = memory()
    soft, hard = open_files()
    used = {**folders, TEMPORARY: Path(tempfile.gettempdir())}
    return Machine(
        host=os.uname().nodename,
        cores=cores(),
        quota=core_quota(),
        memory_bytes=total,
        free_bytes=free,
        open_files=soft,
        most_open_files=hard,
        shared=find_disk(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None,
        disks={name: find_disk(folder, is_written=name != RECORDS) for name, folder in used.items()},
    )
