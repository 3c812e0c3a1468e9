"""Workers that were started apart, of which one fails, is killed or comes late: real processes, by TF_CONFIG or not."""

import json
import re
import signal
import socket
import threading
import time

import pytest

from mis.errors import MisError, WorkerError
from mis.ports import free_port
from mis.train.meeting import LINGER_S, Meeting
from mis.train.rendezvous import Rendezvous
from tests.train.test_session import environment, start

pytestmark = pytest.mark.slow

LEARN_S = 60
"""Seconds in which the others must have learnt: twice what is promised, because this machine may be busy."""


def two_addresses():
    return [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]


def wait_for(condition, what):
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def written(process):
    """Return what a process has written to stderr so far."""
    file = process.folder / "err"
    return file.read_text() if file.exists() else ""


# ---- The command, by TF_CONFIG and as a step of SLURM ----


@pytest.fixture
def nowhere(tmp_path_factory, project):
    """A project without records, in which a training is refused."""
    folder = tmp_path_factory.mktemp("nowhere")
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_bytes((project / name).read_bytes())
    return folder


def start_worker(warm, project, addresses, rank):
    """Start `python -m mis.train` as one of two workers."""
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    return start(warm, project, env={"TF_CONFIG": json.dumps(config)}, distribute__workers=2)


def start_task(warm, folder, root, rank):
    """Start `python -m mis.train` as one of the two tasks of a step of SLURM, which share the folder of checkpoints."""
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
    env = step | {"SLURM_PROCID": str(rank), "MIS_ROOT": str(root)}
    return start(warm, folder, env=env, distribute__workers=2)


def error_of(process, returncode, timeout=LEARN_S):
    """Return the only line in which a process says why it has ended."""
    _, errors = process.communicate(timeout=timeout)
    assert process.returncode == returncode, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    return line


@pytest.mark.parametrize("failing", [0, 1])
def test_a_worker_learns_why_the_other_has_failed(warm, project, nowhere, failing):
    addresses = two_addresses()
    projects = [nowhere if rank == failing else project for rank in range(2)]
    processes = [start_worker(warm, projects[rank], addresses, rank) for rank in range(2)]
    reason = error_of(processes[failing], 2).removeprefix("error: ")
    assert error_of(processes[1 - failing], 2) == (
        f"error: worker {failing} on 127.0.0.1 ended before the training began: {reason}"
    )


@pytest.mark.parametrize("failing", [0, 1])
def test_a_task_of_slurm_learns_it_and_no_address_is_left(warm, project, nowhere, failing):
    folders = [nowhere if rank == failing else project for rank in range(2)]
    processes = [start_task(warm, folders[rank], project, rank) for rank in range(2)]
    reason = error_of(processes[failing], 2).removeprefix("error: ")
    assert error_of(processes[1 - failing], 2).endswith(f"ended before the training began: {reason}")
    assert not list(project.glob("checkpoints/rendezvous/*"))


def test_a_worker_that_is_started_a_little_later_learns_it_too(warm, project, nowhere):
    addresses = two_addresses()
    chief = start_worker(warm, nowhere, addresses, 0)
    wait_for(lambda: "ends (" in written(chief), "the chief waits to tell it")
    other = start_worker(warm, project, addresses, 1)
    assert "worker 0 on 127.0.0.1 ended before the training began: " in error_of(other, 2)
    error_of(chief, 2)


def test_a_worker_that_waits_for_the_chief_says_so_and_ends_by_sigterm(warm, project):
    process = start_worker(warm, project, two_addresses(), 1)
    wait_for(lambda: "is waiting for" in written(process), "it never said that it waits")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LEARN_S)
    assert process.returncode == -signal.SIGTERM, errors
    assert not list(project.glob("checkpoints/rendezvous/*/*"))


def test_a_task_of_slurm_that_waits_for_the_address_of_another_ends_by_sigterm_and_leaves_no_address(warm, project):
    process = start_task(warm, project, project, 1)
    wait_for(lambda: list(project.glob("checkpoints/rendezvous/*/1")), "it wrote no address")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LEARN_S)
    assert process.returncode == -signal.SIGTERM, errors
    assert not list(project.glob("checkpoints/rendezvous/*"))


# ---- One worker in every state ----


WORKER = """
import os, sys, threading, time
from pathlib import Path
from mis.cli import exit_code
import mis.train.meeting
from mis.train.meeting import Meeting
from mis.train.rendezvous import Rendezvous, say
from mis.train.worker import join

folder, way, rank, *addresses = sys.argv[1:]
folder, rank = Path(folder), int(rank)
mis.train.meeting.WAITING_S = mis.train.meeting.SAY_AGAIN_S = 0.5

def beat():
    while True:
        (folder / f"beats-{rank}").open("a").write(".")
        time.sleep(0.02)

def never_connect(*arguments):
    (folder / f"met-{rank}").touch()
    threading.Event().wait()

def command():
    threading.Thread(target=beat, daemon=True).start()
    file = folder / "addresses" / str(rank)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with Meeting(Rendezvous(tuple(addresses), rank, file), say) as meeting:
        if way == "stay away":
            threading.Event().wait()
        if way == "fail":
            raise ValueError("nonsense")
        if way == "never connect":
            mis.train.worker.make_multiworker_strategy = never_connect
        count = join(meeting, 1, lambda worker: worker.strategy.num_replicas_in_sync, print, wait_s=100)
        print(count)

sys.exit(exit_code(command))
"""


@pytest.fixture
def start_way(warm, tmp_path):
    """Start a worker that behaves in some way."""
    addresses = two_addresses()
    env = environment(CUDA_VISIBLE_DEVICES="-1")
    return lambda rank, way="join": warm.start(tmp_path, way, rank, *addresses, source=WORKER, env=env)


def said(process, pattern):
    """Wait until a process has written a line that matches."""
    return wait_for(lambda: re.search(pattern, written(process)), f"it never said {pattern}")


@pytest.mark.parametrize("late", [0, 1])
def test_a_worker_that_comes_late_is_waited_for(start_way, late):
    early = start_way(1 - late)
    said(early, rf"worker {1 - late} .* is waiting for worker {late} on 127.0.0.1 \(not there yet\), at most 100 s")
    both = [early, start_way(late)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert [out for out, _ in ended] == ["2\n", "2\n"]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_that_is_killed_before_it_is_ready_is_not_waited_for(start_way, killed):
    lost, other = start_way(killed, "stay away"), start_way(1 - killed)
    said(other, rf"is waiting for worker {killed} on 127.0.0.1, at most")
    lost.kill()
    assert error_of(other, 1) == (
        f"error: worker {killed} on 127.0.0.1 ended before the training began: its process was killed, or its node was "
        "lost"
    )


def test_what_a_worker_raises_is_told_in_one_line(start_way):
    _, other = start_way(0, "fail"), start_way(1)
    assert error_of(other, 1).endswith("worker 0 on 127.0.0.1 ended before the training began: ValueError: nonsense")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_is_lost_while_tensorflow_connects_is_not_waited_for(start_way, tmp_path, lost):
    processes = [start_way(rank, "never connect" if rank == lost else "join") for rank in range(2)]
    wait_for((tmp_path / f"met-{lost}").exists, "they never met")
    processes[lost].kill()
    line = error_of(processes[1 - lost], 1)
    assert f"worker {lost} on 127.0.0.1 ended before the training began: its process was killed" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_tensorflow_lets_wait_goes_on_with_other_threads_and_ends_by_a_signal(
    start_way, tmp_path, number
):
    chief, other = start_way(0), start_way(1, "never connect")
    wait_for((tmp_path / "met-1").exists, "they never met")
    beats = tmp_path / "beats-0"
    before = beats.stat().st_size
    wait_for(lambda: beats.stat().st_size > before + 100, "no other thread runs")
    assert chief.poll() is None
    chief.send_signal(number)
    assert chief.communicate(timeout=LEARN_S)[0] == ""
    assert chief.returncode == -number
    assert not (tmp_path / "addresses" / "0").exists()
    other.kill()


# ---- The meeting itself ----


def attend(rendezvous, errors, limit_s=LEARN_S):
    try:
        with Meeting(rendezvous, lambda line: None) as meeting:  # noqa: ARG005
            meeting.wait(limit_s)
            meeting.end()
    except (MisError, WorkerError) as error:
        errors[rendezvous.rank] = error


def test_all_go_on_when_the_last_is_ready_and_the_port_is_free_then():
    addresses = tuple(f"127.0.0.1:{free_port()}" for _ in range(4))
    errors = {}
    threads = [
        threading.Thread(target=attend, args=[Rendezvous(addresses, rank), errors], daemon=True) for rank in range(3)
    ]
    for thread in threads:
        thread.start()
    attend(Rendezvous(addresses, 3), errors)
    for thread in threads:
        thread.join(LEARN_S)
    assert errors == {}
    with socket.create_server(("127.0.0.1", int(addresses[0].rpartition(":")[2]))):
        pass


def test_workers_with_other_addresses_are_refused():
    mine, *_ = addresses = two_addresses()
    errors = {}
    others = Rendezvous((mine, "127.0.0.1:1"), 1)
    thread = threading.Thread(target=attend, args=[others, errors], daemon=True)
    thread.start()
    attend(Rendezvous(tuple(addresses), 0), errors)
    thread.join(LEARN_S)
    assert {type(error) for error in errors.values()} == {MisError}
    assert all(
        f"all workers must name the same addresses, got {mine}, 127.0.0.1:1" in str(errors[rank]) for rank in errors
    )
    assert sorted(errors) == [0, 1]


def test_a_worker_does_not_wait_without_end(monkeypatch):
    monkeypatch.setattr("mis.train.meeting.LINGER_S", 0.1)
    monkeypatch.setattr("mis.train.meeting.GRACE_S", 0.1)
    errors = {}
    attend(Rendezvous(tuple(two_addresses()), 1), errors, limit_s=0.1)
    assert re.fullmatch(
        r"worker 1 on 127.0.0.1 waited 0.1 s \(distribute.stall_s\) for worker 0 on 127.0.0.1 \(not there yet\); .*",
        str(errors[1]),
    )
    assert LINGER_S <= 30


def test_a_port_that_something_else_has_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        errors = {}
        attend(Rendezvous((address, "127.0.0.1:1"), 0), errors)
    assert f"the port of worker 0 on 127.0.0.1 must be free (Address already in use), got {address}" in str(errors[0])


def test_what_is_no_worker_disturbs_nobody():
    addresses = two_addresses()
    errors, chief = {}, Rendezvous(tuple(addresses), 0)
    thread = threading.Thread(target=attend, args=[chief, errors], daemon=True)
    thread.start()

    def connect():
        try:
            return socket.create_connection(("127.0.0.1", int(addresses[0].rpartition(":")[2])), timeout=LEARN_S)
        except OSError:
            return None

    for text in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"rank": 7}\n', b'{"rank": []}\n', b"\xff\n", b""):
        with wait_for(connect, "the chief never listened") as stranger:
            stranger.sendall(text)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
    attend(Rendezvous(tuple(addresses), 1), errors)
    thread.join(LEARN_S)
    assert errors == {}
