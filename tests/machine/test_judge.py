"""Each trouble planted in made-up facts, one at a time, and no alarm on healthy facts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mis.doctor.cluster import judge_node
from mis.doctor.gpus import Gpus, judge_gpus
from mis.doctor.locks import judge_locks
from mis.machine.disks import Disk
from mis.machine.facts import CHECKPOINTS, LOGGED, RECORDS, TEMPORARY, Machine
from mis.machine.judge import GIB, MIB, judge_machine
from mis.train.allocate import Node
from mis.train.clocks import Reading
from mis.train.cluster import OBJECT_STORE_BYTES
from mis.train.nodes import Answer, NoAnswer

DISK = Disk("/data", "ext4", frozenset({"rw"}), free_bytes=500 * GIB, total_bytes=1000 * GIB, free_files=10**6)
SHARED = Disk("/dev/shm", "tmpfs", frozenset({"rw"}), free_bytes=30 * GIB, total_bytes=32 * GIB)  # noqa: S108
HEALTHY = Machine(
    host="node-1",
    cores=16,
    quota=None,
    memory_bytes=64 * GIB,
    free_bytes=60 * GIB,
    open_files=1024,
    most_open_files=2**20,
    shared=SHARED,
    disks=dict.fromkeys((CHECKPOINTS, RECORDS, LOGGED, TEMPORARY), DISK),
)


def judged(machine, *, is_node=False, store_bytes=OBJECT_STORE_BYTES):
    return judge_machine(machine, store_bytes=store_bytes, is_node=is_node)


def with_disk(name, **changes):
    return replace(HEALTHY, disks={**HEALTHY.disks, name: replace(DISK, **changes)})


NFS = {"kind": "nfs", "options": frozenset({"rw", "vers=3"})}


@pytest.mark.parametrize(
    "machine",
    [
        HEALTHY,
        replace(HEALTHY, quota=16.0),
        with_disk(CHECKPOINTS, **NFS),
        with_disk(CHECKPOINTS, free_files=None),
        with_disk(RECORDS, free_bytes=0),
        with_disk(RECORDS, **NFS | {"options": frozenset({"ro", "nolock"})}),
    ],
    ids=["plain", "a quota of all cores", "NFS with locks", "no count of files", "full records", "records on NFS"],
)
def test_there_is_no_alarm_on_healthy_facts(machine):
    found = judged(machine)
    assert {diagnosis.mark for diagnosis in found} == {"ok"}
    assert not any(diagnosis.do for diagnosis in found)
    assert {diagnosis.about for diagnosis in found} == {
        "cores",
        "memory",
        "shared memory",
        "open files",
        *machine.disks,
    }


TROUBLES = {
    "a quota": (replace(HEALTHY, quota=2.5), "warning", "cores", "time of 2.5", "MIS_DEVICES=2"),
    "a small quota": (replace(HEALTHY, quota=0.5), "warning", "cores", "time of 0.5", "MIS_DEVICES=1"),
    "no memory": (replace(HEALTHY, free_bytes=GIB), "warning", "memory", "1.0 GiB free of 64.0 GiB", "end what"),
    "no /dev/shm": (replace(HEALTHY, shared=None), "warning", "shared memory", "no /dev/shm", "tmpfs"),
    "a container's /dev/shm": (
        replace(HEALTHY, shared=replace(SHARED, free_bytes=64 * MIB, total_bytes=64 * MIB)),
        "warning",
        "shared memory",
        "64 MiB free in /dev/shm, less than the 128 MiB",
        "--shm-size=256m",
    ),
    "shared memory is not writable": (
        replace(HEALTHY, shared=replace(SHARED, refusal="Permission denied")),
        "error",
        "shared memory",
        "Permission denied",
        "let users write",
    ),
    "few open files": (
        replace(HEALTHY, most_open_files=1024),
        "warning",
        "open files",
        "may open 1024 files",
        "ulimit -n 8192 before the command",
    ),
    "checkpoints cannot be written": (
        with_disk(CHECKPOINTS, refusal="Read-only file system"),
        "error",
        CHECKPOINTS,
        "not writable: Read-only file system",
        "MIS_ROOT",
    ),
    "no space": (with_disk(CHECKPOINTS, free_bytes=MIB), "error", CHECKPOINTS, "1 MiB free", "MIS_ROOT"),
    "little space": (with_disk(CHECKPOINTS, free_bytes=GIB), "warning", CHECKPOINTS, "may fill", "MIS_ROOT"),
    "no more files": (with_disk(LOGGED, free_files=7), "error", LOGGED, "only 7 more files", "MIS_ROOT"),
    "records that are lost": (with_disk(RECORDS, refusal="Stale file handle"), "error", RECORDS, "Stale", "space"),
    "no temporary space": (with_disk(TEMPORARY, free_bytes=0), "error", TEMPORARY, "too little", "TMPDIR"),
    "a disk too full for Ray": (
        with_disk(TEMPORARY, free_bytes=40 * GIB),
        "warning",
        TEMPORARY,
        "more than 95% are used",
        "TMPDIR",
    ),
    "NFS without locks": (
        with_disk(CHECKPOINTS, **NFS | {"options": frozenset({"rw", "nolock"})}),
        "warning",
        CHECKPOINTS,
        "nfs with nolock, rw: locks stay on this host",
        "start each study from one host",
    ),
    "sshfs": (with_disk(CHECKPOINTS, kind="fuse.sshfs"), "warning", CHECKPOINTS, "fuse.sshfs", "one host"),
}


@pytest.mark.parametrize(("machine", "mark", "about", "found", "do"), TROUBLES.values(), ids=TROUBLES)
def test_each_trouble_is_the_only_one_and_says_what_to_do(machine, mark, about, found, do):
    (trouble,) = [diagnosis for diagnosis in judged(machine) if diagnosis.mark != "ok"]
    assert (trouble.mark, trouble.about) == (mark, about)
    assert trouble.found.startswith("node-1: ")
    assert found in trouble.found
    assert do in trouble.do


def test_a_driver_raises_its_own_limit_of_open_files_and_a_node_that_runs_does_not():
    machine = replace(HEALTHY, open_files=1024, most_open_files=2**20)
    assert all(diagnosis.mark == "ok" for diagnosis in judged(machine))
    (trouble,) = [diagnosis for diagnosis in judged(machine, is_node=True) if diagnosis.mark != "ok"]
    assert (trouble.mark, trouble.about) == ("warning", "open files")
    assert "before `ray start`" in trouble.do


def test_the_object_store_of_a_node_that_runs_is_in_its_shared_memory_already():
    machine = replace(HEALTHY, open_files=65536, shared=replace(SHARED, free_bytes=GIB))
    assert all(diagnosis.mark == "ok" for diagnosis in judged(machine, is_node=True, store_bytes=20 * GIB))
    assert [
        diagnosis.about for diagnosis in judged(machine, is_node=True, store_bytes=40 * GIB) if diagnosis.mark != "ok"
    ] == ["shared memory"]


@given(st.integers(0, 2**45), st.integers(0, 2**45), st.integers(0, 2**20), st.floats(0.1, 256), st.booleans())
def test_every_part_has_a_line_whatever_the_facts_and_only_troubles_say_what_to_do(free, total, files, quota, is_node):
    disk = replace(DISK, free_bytes=min(free, total), total_bytes=total, free_files=files)
    machine = replace(HEALTHY, quota=quota, free_bytes=free, most_open_files=files, shared=disk)
    machine = replace(machine, disks=dict.fromkeys(HEALTHY.disks, disk))
    found = judged(machine, is_node=is_node)
    assert {"cores", "memory", "shared memory", "open files", *machine.disks} == {line.about for line in found}
    assert all(bool(line.do) == (line.mark != "ok") for line in found)


# ---- GPUs ----


@pytest.mark.parametrize(
    ("gpus", "mark", "about", "found"),
    [
        (Gpus(), "ok", "GPUs", "none is promised"),
        (Gpus(found=4, promise="/dev/nvidia0"), "ok", "GPUs", "TensorFlow has 4"),
        (
            Gpus(promise="SLURM_JOB_GPUS=0", missing="libcudnn.so.9 cannot be loaded"),
            "error",
            "GPUs",
            "TensorFlow has none, though SLURM_JOB_GPUS=0 promises some: libcudnn.so.9 cannot be loaded",
        ),
        (Gpus(failure="it cannot be imported: ImportError: no"), "error", "TensorFlow", "ImportError"),
    ],
)
def test_gpus(gpus, mark, about, found):
    diagnosis = judge_gpus("node-1", gpus)
    assert (diagnosis.mark, diagnosis.about) == (mark, about)
    assert found in diagnosis.found
    assert bool(diagnosis.do) == (mark != "ok")


# ---- Nodes ----

NODE = Node(cpus=16, gpus=1, memory_bytes=60 * GIB, shared_bytes=20 * GIB)
NOW = Reading(0.0, 0.0, 0.0)


def answered(value):
    return Answer(value, NOW)


def test_a_node_with_which_nothing_is_wrong_is_one_line():
    machine = answered(replace(HEALTHY, open_files=65536))
    (line,) = judge_node("node-1", NODE, machine, answered(Gpus(1, "Ray")))
    assert (line.mark, line.found) == (
        "ok",
        "node-1: 16 cores, 1 GPU, 60.0 GiB of memory for Ray; nothing is wrong with it",
    )


def test_of_another_node_only_its_troubles_are_said():
    found = judge_node("node-1", NODE, answered(replace(HEALTHY, shared=None)), answered(Gpus(0, "Ray", "no driver")))
    assert [(line.mark, line.about) for line in found] == [
        ("warning", "shared memory"),
        ("warning", "open files"),
        ("error", "GPUs"),
    ]


def test_a_node_that_does_not_answer_is_an_error_and_one_whose_gpus_are_in_use_a_warning():
    silent = NoAnswer("has not answered within 60 s")
    (line,) = judge_node("node-1", NODE, silent, silent)
    assert (line.mark, line.found) == ("error", "node-1 has not answered within 60 s")
    (line,) = judge_node("node-1", NODE, answered(replace(HEALTHY, open_files=65536)), silent)
    assert (line.mark, line.about) == ("warning", "TensorFlow")
    assert "in use" in line.found


def test_a_node_that_can_lock_what_is_locked_is_named(tmp_path):
    kept = {"node-1": answered(False), "node-2": answered(False)}
    assert [line.mark for line in judge_locks(tmp_path, kept)] == ["ok"]
    (line,) = judge_locks(tmp_path, kept | {"node-3": answered(True)})
    assert line.mark == "warning"
    assert line.found.startswith("node-3 can lock")
    assert judge_locks(tmp_path, {"node-1": answered(None), "node-2": NoAnswer("is gone")}) == []
