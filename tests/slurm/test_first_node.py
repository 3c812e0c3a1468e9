"""Another node's step where the first node is lost; tests/cluster loses one under the real SLURM."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from mis.errors import MisError
from mis.ports import free_port
from mis.slurm import first_node
from mis.slurm.allocation import State
from mis.slurm.first_node import addresses_of, answers, watch

WITH = State("RUNNING", "None", 3000, ("n1", "n2"))
WITHOUT = State("RUNNING", "None", 3000, ("n2",))
ENDED = State("COMPLETING", "None", 3000, ("n2",))
NO_ANSWER = MisError("squeue must succeed")


@pytest.fixture
def watched(monkeypatch):
    """Return what a watch has done, for what SLURM says in turn and whether the first node answers."""

    def run(said, *, alive=False, last_turn=False):
        done, said = [], iter(said)

        def state_of(job):
            assert job == "20_3"
            state = next(said)
            if isinstance(state, MisError):
                raise state
            return state

        monkeypatch.setattr(first_node, "state_of", state_of)
        monkeypatch.setattr(first_node, "requeue", lambda job: done.append(f"requeue {job}"))
        monkeypatch.setattr(first_node, "cancel", lambda job: done.append(f"cancel {job}"))
        monkeypatch.setattr(first_node, "answers", lambda addresses: alive and addresses == ["10.0.0.1:6000"])
        monkeypatch.setattr(first_node.time, "sleep", lambda _: done.append("wait"))
        watch("n1", ["10.0.0.1:6000"], "20_3", last_turn=last_turn)
        assert next(said, None) is None
        return done

    return run


def test_the_job_is_queued_again_once_slurm_takes_the_first_node_for_lost(watched):
    assert watched([WITH, WITH, WITHOUT]) == ["wait", "wait", "requeue 20_3"]
    assert watched([NO_ANSWER, WITHOUT]) == ["wait", "requeue 20_3"]
    assert watched([WITHOUT], alive=True) == ["requeue 20_3"]  # it has started anew, without the batch script
    assert watched([WITHOUT], last_turn=True) == ["cancel 20_3"]


def test_the_job_is_left_alone_where_its_first_node_is_there_or_it_ends(watched):
    assert watched([WITH], alive=True) == []
    assert watched([ENDED]) == []
    assert watched([WITH, ENDED]) == ["wait"]


GONE = "192.0.2.1:6000"  # of a network that is for documentation alone


@pytest.fixture
def no_route(monkeypatch):
    """Have the machine at GONE not answer, however this machine's network is made."""
    connect = socket.create_connection

    def create_connection(address, **options):
        if address[0] == GONE.partition(":")[0]:
            raise OSError(113, "No route to host")
        return connect(address, **options)

    monkeypatch.setattr(first_node.socket, "create_connection", create_connection)


@pytest.mark.usefixtures("no_route")
def test_a_machine_answers_where_one_of_its_addresses_does_also_where_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert answers([f"127.0.0.1:{server.getsockname()[1]}"])
    nothing = f"127.0.0.1:{free_port('127.0.0.1')}"
    assert answers([nothing])
    assert answers([GONE, nothing])
    assert not answers([GONE])


def test_the_first_node_is_looked_for_under_the_address_that_slurm_has_too():
    assert addresses_of("10.99.0.1:6000", {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}) == [
        "10.99.0.1:6000",
        "10.0.0.1:6000",
    ]
    assert addresses_of("10.99.0.1:6000", {}) == ["10.99.0.1:6000"]


PATIENT = (
    "import mis.slurm.first_node as it; it.POLL_S = 0.2; it.answers = lambda _: False; raise SystemExit(it.main())"
)


def step(folder, source, *, says, module=("-m", "mis.slurm.first_node")):
    """Start a step, with a `squeue` that notes that it was asked and says that the first node is lost."""
    for name, line in (("squeue", "RUNNING|None|1:00:00|n2"), ("scontrol", "n2")):
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/asked\necho "{line}"\n')
        program.chmod(0o755)
    words = ["--node=n1", "--address=127.0.0.1:1", "--", sys.executable, "-c", source]
    started = subprocess.Popen(
        [sys.executable, *module, *words],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout.readline().strip() == says
    return started


ASKED = "print('up', flush=True); import sys; sys.stdin.read()"


def test_a_step_that_ends_unasked_looks_for_the_first_node(tmp_path):
    started = step(tmp_path, f"{ASKED}; sys.exit(3)", says=b"up")
    started.communicate(timeout=60)
    assert started.returncode == 3
    assert "scontrol requeue 17\n" in (tmp_path / "asked").read_text()


def test_a_step_that_is_told_to_end_does_not(tmp_path):
    started = step(tmp_path, ASKED, says=b"up")
    started.communicate(timeout=60)  # closes its input, as the batch script does
    assert started.returncode == 0
    started = step(tmp_path, ASKED, says=b"up")
    started.send_signal(signal.SIGTERM)
    with started.stdin, started.stdout:
        assert started.wait(60) == 128 + signal.SIGTERM
    assert not (tmp_path / "asked").exists()


def test_a_step_that_runs_on_looks_for_a_first_node_that_answers_no_more(tmp_path):
    started = step(tmp_path, ASKED, says=b"up", module=("-c", PATIENT))
    deadline = time.monotonic() + 60
    while not (tmp_path / "asked").exists() or "requeue" not in (tmp_path / "asked").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started.communicate(timeout=60)
    assert started.returncode == 0
