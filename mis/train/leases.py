"""The devices of this machine that a search has for itself: one that is started beside it takes what is left.

Each search on a machine has a Ray cluster of its own, which knows of no other: both would take the first GPU. A lease
is a locked file, which ends with its process, in whatever way. On a cluster that RAY_ADDRESS names, Ray counts.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from mis.settings import Settings, cores
from mis.train.cluster import is_connected

LOOK_S = 1.0
"""Seconds between two looks whether devices have become free."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def own_devices(settings: Settings, least: int, say: Callable[[str], None]) -> Iterator[Settings]:
    """Lease devices of this machine, and yield settings with their number as the most that may be used.

    As many as are free, at most `settings.devices`; where there are fewer than `least`, they are waited for.

    Args:
        settings: The machine's settings. Where they name a cluster, nothing is leased.
        least: How many devices are needed at least.
        say: Takes a line for the user.
    """
    if settings.ray_address is not None or is_connected():
        yield settings
        return
    gpus = visible_gpus()
    names = [f"gpu-{name}" for name in gpus.values()] or [f"core-{number}" for number in range(cores())]
    with leased(names, settings.devices, least, settings.leases, say) as devices, _visible(gpus, devices):
        yield replace(settings, devices=len(devices))


@contextmanager
def leased(
    names: Sequence[str], most: int | None, least: int, folder: Path, say: Callable[[str], None]
) -> Iterator[list[str]]:
    """Lease devices for the block, and yield their names.

    Args:
        names: The devices of this machine.
        most: How many are leased at most; None leases all that are free.
        least: How many at least: they are waited for, without holding others meanwhile. More than there can be are
            not: who asks for them is refused elsewhere.
        folder: The folder of the leases.
        say: Takes a line for the user, where devices are waited for.
    """
    most = len(names) if most is None else min(most, len(names))
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        said = False
        while True:
            devices = _lease_free(names, most, folder, held)
            if len(devices) >= min(least, most):
                break
            held.close()
            if not said:
                said = True
                say(_waits(names, least, folder))
            time.sleep(LOOK_S)
        if len(devices) < most:
            say(f"{len(devices)} of {len(names)} devices are free: other searches on this machine have the others")
        yield devices


def _lease_free(names: Sequence[str], most: int, folder: Path, held: ExitStack) -> list[str]:
    devices: list[str] = []
    for name in names:
        lock = FileLock(folder / f"{name}.lock", timeout=0)
        if len(devices) < most:
            with suppress(Timeout):
                held.enter_context(lock)
                devices.append(name)
                holder = folder / f"{name}.pid"
                holder.write_text(str(os.getpid()), encoding="utf-8")
                held.callback(holder.unlink, missing_ok=True)
    return devices


def _waits(names: Sequence[str], least: int, folder: Path) -> str:
    holders = {path.read_text(encoding="utf-8") for name in names if (path := folder / f"{name}.pid").exists()}
    return (
        f"waiting for {least} of {len(names)} devices: other searches on this machine have them (processes "
        f"{', '.join(sorted(holders))}); MIS_DEVICES lets a search take fewer"
    )


def visible_gpus() -> dict[str, str]:
    """Return the GPUs that this process may use: the name that the driver never changes, by that in the environment."""
    listed = _listed_gpus()
    chosen = os.environ.get(VISIBLE)
    if chosen is None:
        return listed
    wanted = [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return {name: listed.get(name, name) for name in wanted}


def _listed_gpus() -> dict[str, str]:
    """Return the ids of this machine's GPUs, by their index; none where the driver is not there."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {index.strip(): uuid.strip() for index, _, uuid in (line.partition(",") for line in lines)}


@contextmanager
def _visible(gpus: dict[str, str], devices: Sequence[str]) -> Iterator[None]:
    """Let this process, and those that it starts, see the leased GPUs alone."""
    if not gpus:
        yield
        return
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(name for name, uuid in gpus.items() if f"gpu-{uuid}" in devices)
    try:
        yield
    finally:
        os.environ.pop(VISIBLE)
        if before is not None:
            os.environ[VISIBLE] = before
