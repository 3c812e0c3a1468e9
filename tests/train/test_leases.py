"""Devices of one machine, leased by several processes."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from mis.settings import Settings, cores
from mis.train.leases import VISIBLE, Lease, leased, own_devices, visible_gpus

DEVICES = ["gpu-a", "gpu-b", "gpu-c"]

HOLDING = """
import sys
from pathlib import Path
from mis.train.leases import leased

with leased(sys.argv[2:], 2, 1, Path(sys.argv[1]), print, what="study a") as devices:
    print(*devices, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has two of the devices, and its output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, tmp_path, *DEVICES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().split() == ["gpu-a", "gpu-b"]
    yield process
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("other")
def test_the_second_takes_what_is_left_and_says_so(tmp_path):
    said = []
    with leased(DEVICES, None, 1, tmp_path, said.append) as devices:
        assert devices == ["gpu-c"]
    assert said == ["1 of 3 devices are free: other searches on this machine have the others"]


def test_the_second_waits_where_too_few_are_left_and_says_for_whom(tmp_path, other):
    said, taken = [], threading.Event()

    def say(line):
        said.append(line)
        other.kill()  # whatever becomes of the process, its devices are free
        taken.set()

    with leased(DEVICES, None, 2, tmp_path, say) as devices:
        assert devices == DEVICES
    assert taken.is_set()
    assert said[0] == (
        f"waiting for 2 devices: 1 of the 3 of this machine is free, the others have study a (process {other.pid}); "
        "MIS_DEVICES lets a search take fewer"
    )


def test_who_has_set_a_limit_is_not_told_of_it(tmp_path, other):
    said = []

    def say(line):
        said.append(line)
        other.kill()

    with leased(DEVICES, 2, 2, tmp_path, say):
        pass
    assert said[0].endswith(f"the others have study a (process {other.pid})")


def test_who_waits_holds_nothing_meanwhile(tmp_path, other):
    def say(line):
        if line.startswith("waiting"):
            with leased(DEVICES, None, 1, tmp_path, lambda _: None) as devices:
                assert devices == ["gpu-c"]
            other.kill()

    with leased(DEVICES, 3, 3, tmp_path, say) as devices:
        assert devices == DEVICES


# ---- A cleaner of temporary files ----


def clean(folder):
    """Delete all files, as a cleaner of /tmp does with what nobody has touched for days."""
    for path in folder.iterdir():
        path.unlink()


def test_a_name_that_was_deleted_between_opening_and_locking_is_no_lease(tmp_path, monkeypatch):
    """The file that was locked is no longer the one that the next process opens."""
    lock, taken = fcntl.flock, []

    def deletes_once(descriptor, operation):
        if not taken:
            (tmp_path / "gpu-a.lock").unlink()
        taken.append(descriptor)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", deletes_once)
    with leased(["gpu-a"], None, 1, tmp_path, pytest.fail):
        assert len(taken) == 2
        assert Lease.take("gpu-a", tmp_path, "another") is None


def test_held_files_are_touched_and_made_again_where_they_are_gone(tmp_path):
    lease = Lease.take("gpu-a", tmp_path, "study a (process 1)")
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    lease.keep()
    assert min(path.stat().st_mtime for path in tmp_path.iterdir()) > 1
    clean(tmp_path)
    lease.keep()
    assert Lease.take("gpu-a", tmp_path, "another") is None
    assert (tmp_path / "gpu-a.pid").read_text() == "study a (process 1)"
    lease.end()
    again = Lease.take("gpu-a", tmp_path, "another")
    lost = Lease.take("gpu-b", tmp_path, "study a (process 1)")
    clean(tmp_path)
    other = Lease.take("gpu-b", tmp_path, "another")
    lost.keep()
    lost.end()
    assert (tmp_path / "gpu-b.pid").read_text() == "another", "what another process has by now is left to it"
    again.end()
    other.end()


def test_while_devices_are_leased_their_files_are_looked_after(tmp_path, monkeypatch):
    kept = threading.Event()
    monkeypatch.setattr("mis.train.leases.KEEP_S", 0.01)
    monkeypatch.setattr(Lease, "keep", lambda _: kept.set())
    with leased(DEVICES, None, 1, tmp_path, pytest.fail):
        assert kept.wait(60)


def test_more_than_there_are_is_not_waited_for(tmp_path):
    with leased(DEVICES, 9, 9, tmp_path, pytest.fail) as devices:
        assert devices == DEVICES
    with leased(DEVICES, 2, 3, tmp_path, pytest.fail) as devices:
        assert devices == DEVICES[:2]


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine whose driver lists two GPUs; there is none where the tests run."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho '0, GPU-aa'\necho '1, GPU-bb'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.delenv(VISIBLE, raising=False)


def settings(tmp_path, **values):
    return Settings(root=tmp_path, workspace=tmp_path, tracking_uri="", leases=tmp_path / "leases", **values)


@pytest.mark.usefixtures("two_gpus")
def test_a_search_sees_the_gpus_that_it_has_leased_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("mis.train.leases.is_connected", lambda: False)
    with own_devices(settings(tmp_path, devices=1), 1, pytest.fail) as own:
        assert (os.environ[VISIBLE], own.devices) == ("0", 1)
        del os.environ[VISIBLE]  # as another process has it
        with own_devices(settings(tmp_path), 1, lambda _: None) as second:
            assert (os.environ[VISIBLE], second.devices) == ("1", 1)
        os.environ[VISIBLE] = "0"
    assert VISIBLE not in os.environ


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, {"0": "GPU-aa", "1": "GPU-bb"}),
        ("1", {"1": "GPU-bb"}),
        ("GPU-bb", {"GPU-bb": "GPU-bb"}),
        ("MIG-cc,1", {"MIG-cc": "MIG-cc", "1": "GPU-bb"}),
        ("-1", {}),
        ("", {}),
    ],
)
def test_the_same_gpu_has_the_same_name_however_it_is_chosen(monkeypatch, chosen, expected):
    if chosen is not None:
        monkeypatch.setenv(VISIBLE, chosen)
    assert visible_gpus() == expected


def test_without_a_gpu_the_devices_are_cores(tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "-1")
    monkeypatch.setattr("mis.train.leases.is_connected", lambda: False)
    with own_devices(settings(tmp_path), 1, pytest.fail) as own:
        assert own.devices == cores()


def test_on_a_cluster_nothing_is_leased(tmp_path):
    with own_devices(settings(tmp_path, ray_address="127.0.0.1:1"), 1, pytest.fail) as own:
        assert own.devices is None
    assert not (tmp_path / "leases").exists()
