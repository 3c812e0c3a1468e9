"""The process that records a run: its tags, and whether it still lives."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import psutil

from mis.track.names import HOST_TAG, PID_NAMESPACE_TAG, PID_TAG, STARTED_TAG

STARTED_TOLERANCE_S = 10.0
"""Seconds by which two readings of a process' start may differ: a clock that is set moves what psutil reports."""


def process_tags() -> dict[str, str]:
    """Return the tags that tell this process from all others that ever ran: a pid alone is given again."""
    pid = os.getpid()
    tags = {HOST_TAG: platform.node(), PID_TAG: str(pid), STARTED_TAG: f"{_started_s(pid):.2f}"}
    return tags | ({PID_NAMESPACE_TAG: namespace} if (namespace := _pid_namespace()) else {})


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return whether the process that the tags name has ended; False where that cannot be known."""
    if tags.get(PID_NAMESPACE_TAG, "") != _pid_namespace():
        return False  # a container with this host's name: its pids mean nothing here
    try:
        pid, started_s = int(tags[PID_TAG]), float(tags[STARTED_TAG])
    except (KeyError, ValueError):
        return False
    try:
        return abs(_started_s(pid) - started_s) > STARTED_TOLERANCE_S or _is_zombie(pid)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _started_s(pid: int) -> float:
    return float(psutil.Process(pid).create_time())


def _is_zombie(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def _pid_namespace() -> str:
    """Return the name of the space in which pids are counted, "" where there is only one."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
