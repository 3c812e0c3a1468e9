import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from mis.machine.disks import Disk, find_disk, mount_of

MOUNTS = [
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro",
    "30 22 0:40 / /home rw - nfs server:/home rw,vers=3,nolock,addr=10.0.0.1",
    "31 30 0:41 / /home/me/my\\040data ro - nfs4 server:/data rw,local_lock=none",
    "32 22 0:42 / /scratch rw - lustre host@tcp:/scratch rw,flock",
    "33 32 0:43 / /scratch rw - tmpfs tmpfs rw",
    "34 22 0:44 / /größe rw - xfs /dev/sdb rw",
    "broken",
]


@pytest.mark.parametrize(
    ("folder", "kind", "option"),
    [
        ("/tmp/x", "ext4", "relatime"),  # noqa: S108
        ("/home/me", "nfs", "nolock"),
        ("/homes", "ext4", "relatime"),
        ("/home/me/my data/x", "nfs4", "ro"),
        ("/scratch", "tmpfs", "rw"),
        ("/größe/x", "xfs", "rw"),
    ],
)
def test_a_folder_is_on_the_innermost_mount_and_of_several_on_the_last(folder, kind, option):
    found, options = mount_of(Path(folder), MOUNTS)
    assert found == kind
    assert option in options
    assert mount_of(Path(folder), []) == ("", frozenset())


@pytest.mark.parametrize(
    ("kind", "options", "is_shared", "loses_locks"),
    [
        ("ext4", "rw", False, False),
        ("tmpfs", "rw", False, False),
        ("nfs", "rw,vers=3", True, False),
        ("nfs", "rw,nolock", True, True),
        ("nfs", "rw,local_lock=flock", True, True),
        ("nfs4", "rw,local_lock=none", True, False),
        ("nfs4", "rw,local_lock=all", True, True),
        ("lustre", "rw,flock", True, False),
        ("lustre", "rw,localflock", True, True),
        ("cifs", "rw,nobrl", True, True),
        ("fuse.sshfs", "rw", True, True),
        ("fuse", "rw", True, True),
        ("fuse.glusterfs", "rw", True, False),
        ("wekafs", "rw", True, False),
        ("ext4", "rw,nolock", False, False),
    ],
)
def test_which_file_systems_are_shared_and_which_lose_locks(kind, options, is_shared, loses_locks):
    disk = Disk("/x", kind, frozenset(options.split(",")), 1, 1)
    assert (disk.is_shared, disk.loses_locks) == (is_shared, loses_locks)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_one_above_and_nothing_is_left(tmp_path):
    disk = find_disk(tmp_path / "a" / "b")
    assert disk.folder == str(tmp_path)
    assert disk.refusal == ""
    assert 0 < disk.free_bytes <= disk.total_bytes
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - names alone


def test_a_full_disk_refuses_and_has_nothing_free(full_disk):
    (full_disk / "hog").write_bytes(bytes(2**20 - 8192))
    with suppress(OSError), (full_disk / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    disk = find_disk(full_disk)
    assert (disk.kind, disk.free_bytes, disk.refusal) == ("tmpfs", 0, "No space left on device")
    assert sorted(path.name for path in full_disk.iterdir()) == ["hog", "rest"]


def test_a_disk_that_is_mounted_for_reading_refuses_and_may_be_read(small_disk):
    folder = small_disk("1m")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    assert find_disk(folder).refusal == "Read-only file system"
    assert find_disk(folder, is_written=False).refusal == ""
