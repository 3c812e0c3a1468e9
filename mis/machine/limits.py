"""What this process may use of its machine: a container or a job may have less than the machine has."""

import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")

NO_LIMIT_BYTES = 2**60
"""From here on a limit of the memory is none: the first version of control groups writes some 2^63 bytes."""


def open_files() -> tuple[int, int]:
    """Return how many files a process may have open, and to how many it may raise that by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    largest = 2**31
    return largest if soft < 0 else soft, largest if hard < 0 else hard


def core_quota(root: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> float | None:
    """Return how many cores' time this process may use by the quota of its control group; None where there is none.

    Args:
        root: Where the control groups are.
        own: The file that names the groups of this process.
    """
    quotas = []
    for folder in _folders(root, own, "cpu"):
        if (words := _words(folder / "cpu.max")) and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
        period = _words(folder / "cpu.cfs_period_us")
        if (words := _words(folder / "cpu.cfs_quota_us")) and period and int(words[0]) > 0:
            quotas.append(int(words[0]) / int(period[0]))
    return min(quotas, default=None)


def memory(root: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> tuple[int, int]:
    """Return how many bytes of memory this process and others of its control group may have, and how many are free.

    Args:
        root: Where the control groups are.
        own: The file that names the groups of this process.
    """
    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    for folder in _folders(root, own, "memory"):
        for limit_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _words(folder / limit_file), _words(folder / used_file)
            if limit and used and limit[0] != "max" and int(limit[0]) < NO_LIMIT_BYTES:
                total = min(total, int(limit[0]))
                free = min(free, max(0, int(limit[0]) - int(used[0]) + _inactive(folder)))
    return total, free


def _inactive(folder: Path) -> int:
    """Return the bytes of files that are kept in memory and given up where they are in the way."""
    words = _words(folder / "memory.stat")
    found = dict(zip(words[::2], words[1::2], strict=False))
    return int(found.get("inactive_file", found.get("total_inactive_file", 0)))


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, up to the root, in both versions of control groups.

    In a container the path may be that of the host: then the root is the container's own group.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top) and folder.is_dir())


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []
