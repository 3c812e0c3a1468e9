"""The file system of a folder: its kind, how it is mounted, and the space that is left on it."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

NETWORK_KINDS = (
    *("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "afs", "wekafs", "panfs"),
    *("fuse.glusterfs", "fuse.ceph-fuse", "fuse.ceph"),
)
"""Kinds of file systems that several hosts may have in common, and on which a file's lock reaches all of them."""

FUSE = "fuse"
"""The kind, or how it begins before a point, of others that a program serves: sshfs, rclone, s3fs. They know no
common locks, or none that can be told from here."""

LOCKS_STAY_HERE = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"local_lock=all", "local_lock=flock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
    "lustre": {"localflock", "noflock"},
}
"""Options of mounts with which a file's lock holds on its own host alone: nfs(5), mount.cifs(8), mount.lustre(8)."""


@dataclass(frozen=True)
class Disk:
    """The file system of a folder.

    Attributes:
        folder: The folder, or the nearest one above it that exists.
        kind: As Linux names it, e.g. `ext4`; "" where that is not known.
        options: How it is mounted.
        free_bytes: What this user may still write.
        total_bytes: Its size.
        free_files: How many files may still be made; None where the file system does not count them.
        refusal: Why nothing can be written there; "" where it can, or was not tried.
    """

    folder: str
    kind: str
    options: frozenset[str]
    free_bytes: int
    total_bytes: int
    free_files: int | None = None
    refusal: str = ""

    @property
    def is_shared(self) -> bool:
        """Whether several hosts may have it in common."""
        return self.kind in NETWORK_KINDS or self._is_served

    @property
    def loses_locks(self) -> bool:
        """Whether the lock of a file does not reach other hosts that have the file."""
        return self._is_served or bool(self.options & LOCKS_STAY_HERE.get(self.kind, set()))

    @property
    def _is_served(self) -> bool:
        return self.kind not in NETWORK_KINDS and self.kind.partition(".")[0] == FUSE


def find_disk(folder: Path, *, is_written: bool = True) -> Disk:
    """Return the file system of a folder, or of the nearest one above it that exists.

    Args:
        folder: The folder, by its absolute path.
        is_written: Whether it is tried to write there: a file is made, and removed again.
    """
    existing = nearest_folder(folder)
    kind, options = mount_of(existing.resolve(), _mounts())
    try:
        space = os.statvfs(existing)
    except OSError as error:  # a server that has lost the folder
        return Disk(str(existing), kind, options, 0, 0, refusal=error.strerror or str(error))
    return Disk(
        folder=str(existing),
        kind=kind,
        options=options,
        free_bytes=space.f_bavail * space.f_frsize,
        total_bytes=space.f_blocks * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        refusal=_refusal(existing) if is_written else "",
    )


def nearest_folder(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists and may be looked at."""
    for path in (folder, *folder.parents):
        with suppress(OSError):
            if path.is_dir():
                return path
    return Path(folder.anchor)


def _mounts() -> list[str]:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def mount_of(folder: Path, mounts: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Return the kind and the options of the mount that a folder is on; "" and none where it is not found.

    Args:
        folder: The folder, without symbolic links.
        mounts: The lines of /proc/self/mountinfo.

    >>> mount_of(Path("/a/b"), ["22 1 8:1 / / rw - ext4 /dev/sda rw", "23 22 0:5 / /a rw - nfs host:/a rw,nolock"])[0]
    'nfs'
    """
    found: tuple[int, str, frozenset[str]] = (-1, "", frozenset())
    for line in mounts:
        here, _, there = line.partition(" - ")
        words, source = here.split(), there.split()
        if len(words) < 6 or len(source) < 3:
            continue
        point = re.sub(r"\\(\d{3})", lambda digits: chr(int(digits[1], 8)), words[4])  # a space is written \040
        # Of two mounts on one folder the later one is seen.
        if folder.is_relative_to(point) and len(point) >= found[0]:
            found = (len(point), source[0], frozenset({*words[5].split(","), *source[2].split(",")}))
    return found[1:]


def _refusal(folder: Path) -> str:
    """Return why no file can be made in a folder and written to the disk; "" where one can."""
    path = folder / f".doctor-{os.uname().nodename}-{os.getpid()}"
    try:
        with path.open("xb", buffering=0) as file:
            try:
                file.write(bytes(4096))
                os.fsync(file.fileno())
            finally:
                path.unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return ""
