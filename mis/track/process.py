"""The process that records a run: its tags, and whether it still lives."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import psutil

from mis.track.names import BOOT_TAG, HOST_TAG, PID_NAMESPACE_TAG, PID_TAG, STARTED_TAG, TICKS_TAG

STARTED_TOLERANCE_S = 10.0
"""Seconds by which two readings of a process' start may differ: a clock that is set moves what psutil reports."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The file in which Linux names the start of the machine."""


def process_tags() -> dict[str, str]:
    """Return the tags that tell this process from all others that ever ran: a pid alone is given again."""
    pid = os.getpid()
    tags = {HOST_TAG: platform.node(), PID_TAG: str(pid), STARTED_TAG: f"{_started_s(pid):.2f}"}
    boot, ticks = _boot_id(), _started_ticks(pid)
    if boot and ticks is not None:
        tags |= {BOOT_TAG: boot, TICKS_TAG: str(ticks)}
    return tags | ({PID_NAMESPACE_TAG: namespace} if (namespace := _pid_namespace()) else {})


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return whether the process that the tags name has ended; False where that cannot be known.

    Processes are compared by the start of the machine and the ticks since then. Tags of an earlier version have the
    time of the day instead, which a clock that is set moves.
    """
    if tags.get(PID_NAMESPACE_TAG, "") != _pid_namespace():
        return False  # a container with this host's name: its pids mean nothing here
    try:
        pid, started_s = int(tags[PID_TAG]), float(tags[STARTED_TAG])
        return _is_zombie(pid) or not _is_the_same(pid, started_s, tags)
    except psutil.NoSuchProcess:
        return True
    except (KeyError, ValueError, psutil.Error):
        return False


def _is_the_same(pid: int, started_s: float, tags: Mapping[str, str]) -> bool:
    """Return whether the process that has a pid now is the one that the tags name."""
    boot, ticks = _boot_id(), _started_ticks(pid)
    if boot and BOOT_TAG in tags and TICKS_TAG in tags:
        return tags[BOOT_TAG] == boot and (ticks is None or tags[TICKS_TAG] == str(ticks))
    return abs(_started_s(pid) - started_s) <= STARTED_TOLERANCE_S


def _started_s(pid: int) -> float:
    return float(psutil.Process(pid).create_time())


def _started_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the start of the machine; None where that is not known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # the 22nd field; the 2nd, in brackets, may have spaces


def _boot_id() -> str:
    """Return the name of this start of the machine, "" where it has none."""
    try:
        return BOOT_ID.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_zombie(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def _pid_namespace() -> str:
    """Return the name of the space in which pids are counted, "" where there is only one."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
