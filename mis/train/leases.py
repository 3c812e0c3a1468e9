"""The devices of this machine that a search has for itself: one that is started beside it takes what is left.

Each search on a machine has a Ray cluster of its own, which knows of no other: both would take the first GPU. A lease
is a locked file, which ends with its process, in whatever way. On a cluster that RAY_ADDRESS names, Ray counts.

A lock is the file's and not its name's: where a cleaner of temporary files deletes the name, the next process makes
another file of the same name, and locks that. So held files are touched, and made again where they are gone.
"""

import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mis.settings import Settings, cores, environment
from mis.train.cluster import is_connected
from mis.words import counted

LOOK_S = 1.0
"""Seconds between two looks whether devices have become free."""

KEEP_S = 60.0
"""Seconds between two looks whether held files are still there; cleaners delete what is untouched for days."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def own_devices(
    settings: Settings, least: int, say: Callable[[str], None], *, what: str = "a search"
) -> Iterator[Settings]:
    """Lease devices of this machine, and yield settings with their number as the most that may be used.

    As many as are free, at most `settings.devices`; where there are fewer than `least`, they are waited for.

    Args:
        settings: The machine's settings. Where they name a cluster, nothing is leased.
        least: How many devices are needed at least.
        say: Takes a line for the user.
        what: What leases them, for those that wait.
    """
    if settings.ray_address is not None or is_connected():
        yield settings
        return
    gpus = visible_gpus()
    names = [f"gpu-{name}" for name in gpus.values()] or [f"core-{number}" for number in range(cores())]
    with leased(names, settings.devices, least, settings.leases, say, what=what) as devices, _visible(gpus, devices):
        yield replace(settings, devices=len(devices))


@contextmanager
def leased(
    names: Sequence[str],
    most: int | None,
    least: int,
    folder: Path,
    say: Callable[[str], None],
    *,
    what: str = "a search",
) -> Iterator[list[str]]:
    """Lease devices for the block, and yield their names.

    Args:
        names: The devices of this machine.
        most: How many are leased at most; None leases all that are free.
        least: How many at least: they are waited for, without holding others meanwhile. More than there can be are
            not: who asks for them is refused elsewhere.
        folder: The folder of the leases.
        say: Takes a line for the user, where devices are waited for.
        what: What leases them, for those that wait: it is named with the process.
    """
    limit, most = most, len(names) if most is None else min(most, len(names))
    holder = f"{what} (process {os.getpid()})"
    with ExitStack() as held:
        said = False
        while True:
            leases = _lease_free(names, most, folder, holder)
            if len(leases) >= min(least, most):
                break
            for lease in leases:
                lease.end()
            if not said:
                said = True
                say(_waits(least, names, len(leases), folder, is_limited=limit is not None))
            time.sleep(LOOK_S)
        for lease in leases:
            held.callback(lease.end)
        if len(leases) < most:
            say(f"{len(leases)} of {len(names)} devices are free: other searches on this machine have the others")
        held.enter_context(_keeping(leases))
        yield [lease.name for lease in leases]


@dataclass
class Lease:
    """A device that this process has for itself.

    Attributes:
        name: The device.
        path: The file whose lock it is.
        holder: Who has it, for people.
        descriptor: The locked file.
    """

    name: str
    path: Path
    holder: str
    descriptor: int

    @classmethod
    def take(cls, name: str, folder: Path, holder: str) -> "Lease | None":
        """Lease a device; return None where another process has it."""
        path = folder / f"{name}.lock"
        descriptor = _lock(path)
        if descriptor is None:
            return None
        lease = cls(name, path, holder, descriptor)
        lease._note_holder()
        return lease

    @property
    def _note(self) -> Path:
        """The file that says who has the device."""
        return self.path.with_suffix(".pid")

    def keep(self) -> None:
        """Touch the files, so that no cleaner deletes them; make them again where one has done so.

        Where another process has leased the device before they are there again, there is nothing left to do.
        """
        if _is_named(self.descriptor, self.path):
            os.utime(self.descriptor)
        elif (again := _lock(self.path)) is not None:
            os.close(self.descriptor)
            self.descriptor = again
        else:
            return
        self._note_holder()

    def end(self) -> None:
        """Give the device back."""
        if _is_named(self.descriptor, self.path):  # otherwise the note is another process'
            self._note.unlink(missing_ok=True)
        os.close(self.descriptor)

    def _note_holder(self) -> None:
        self._note.write_text(self.holder, encoding="utf-8")


def _lock(path: Path) -> int | None:
    """Lock the file of a name, which is made if need be; return its descriptor, None where another one has the lock."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_named(descriptor, path):
            return descriptor
        os.close(descriptor)  # the name was deleted meanwhile, and may be another file's by now


def _is_named(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _keeping(leases: Sequence[Lease]) -> Iterator[None]:
    """Keep the files of leases during the block."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(KEEP_S):
            for lease in leases:
                with suppress(OSError):  # a disk that is full for a while
                    lease.keep()

    thread = threading.Thread(target=keep, name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _lease_free(names: Sequence[str], most: int, folder: Path, holder: str) -> list[Lease]:
    leases: list[Lease] = []
    for name in names:
        if len(leases) < most and (lease := Lease.take(name, folder, holder)) is not None:
            leases.append(lease)
    return leases


def _waits(least: int, names: Sequence[str], free: int, folder: Path, *, is_limited: bool) -> str:
    """Return what is said where too few devices are free.

    Args:
        least: How many are needed.
        names: All devices of the machine.
        free: How many of them are free.
        folder: The folder of the leases.
        is_limited: Whether MIS_DEVICES is set.
    """
    holders = set()
    for name in names:
        with suppress(FileNotFoundError):  # given back just now
            holders.add((folder / f"{name}.pid").read_text(encoding="utf-8"))
    said = (
        f"waiting for {counted(least, 'device')}: {free} of the {len(names)} of this machine "
        f"{'is' if free == 1 else 'are'} free, the others have {', '.join(sorted(holders)) or 'other searches'}"
    )
    return said if is_limited else f"{said}; MIS_DEVICES lets a search take fewer"


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
    with environment({VISIBLE: ",".join(name for name, uuid in gpus.items() if f"gpu-{uuid}" in devices)}):
        yield
