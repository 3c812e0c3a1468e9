"""How workers find each other."""

import json
import socket
import threading
import time

import pytest

from mis.errors import MisError
from mis.ports import free_port
from mis.train.rendezvous import Rendezvous, exchange_addresses, find_rendezvous, local_address


def tf_config(index, **cluster):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": list(cluster)[-1], "index": index}})}


def test_tf_config_gives_the_rendezvous(tmp_path):
    rendezvous = find_rendezvous(tf_config(1, worker=["a:1", "b:2"]), tmp_path, 2)
    assert rendezvous == Rendezvous(("a:1", "b:2"), 1)
    assert json.loads(rendezvous.tf_config()) == json.loads(tf_config(1, worker=["a:1", "b:2"])["TF_CONFIG"])


def test_a_chief_of_its_own_comes_first(tmp_path):
    assert find_rendezvous(tf_config(0, chief=["a:1"], worker=["b:2"]), tmp_path, 2) == Rendezvous(("a:1", "b:2"), 1)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_a_tf_config_that_says_nothing_is_refused_with_an_example(tmp_path, text):
    with pytest.raises(MisError, match="TF_CONFIG must be JSON, of a chief or worker") as error:
        find_rendezvous({"TF_CONFIG": text}, tmp_path, 1)
    assert repr(text) in str(error.value)


def test_another_number_of_workers_than_the_parameters_say_is_refused(tmp_path):
    with pytest.raises(MisError, match=r"TF_CONFIG names \(2\), got 4; --set distribute.workers=2"):
        find_rendezvous(tf_config(0, worker=["a:1", "b:2"]), tmp_path, 4)
    with pytest.raises(MisError, match=r"srun started \(3\), got 2"):
        find_rendezvous({"SLURM_STEP_NUM_TASKS": "3"}, tmp_path, 2)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"TF_CONFIG": ""},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # the batch script itself, not a step
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "4", "RAY_ADDRESS": "auto"},  # a driver beside the nodes of a Ray cluster
    ],
)
def test_a_process_that_is_not_one_of_several_has_no_rendezvous(tmp_path, env):
    assert find_rendezvous(env, tmp_path, 4) is None


@pytest.mark.parametrize("stale", [{}, {"0": "127.0.0.1:1", "2": "127.0.0.1:3"}])
def test_the_tasks_of_a_step_exchange_addresses_through_a_folder(tmp_path, stale):
    seen = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
    for name, address in stale.items():  # address files of a start that was killed
        (tmp_path / "7-1-0").mkdir(exist_ok=True)
        (tmp_path / "7-1-0" / name).write_text(f"{address} {seen}")
    found = {}

    def start(rank):
        step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": str(rank)}
        found[rank] = find_rendezvous({**step, "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}, tmp_path, 3)

    threads = [threading.Thread(target=start, args=(rank,)) for rank in (2, 0, 1)]
    for thread, rank in zip(threads, (2, 0, 1), strict=True):
        thread.start()
        wait_until_it_has_read_the_folder(tmp_path / "7-1-0" / str(rank), stale.get(str(rank)))
    for thread in threads:
        thread.join(timeout=30)
    assert len({rendezvous.addresses for rendezvous in found.values()}) == 1
    assert [found[rank].rank for rank in range(3)] == [0, 1, 2]
    assert len(set(found[0].addresses) - set(stale.values())) == 3
    assert sorted(path.name for path in (tmp_path / "7-1-0").iterdir()) == ["0", "1", "2"]


def wait_until_it_has_read_the_folder(address_file, stale):
    """Wait until a worker has written its address, and then the list with its address that it has read."""
    deadline = time.monotonic() + 30
    while True:
        address, _, addresses = (address_file.read_text() if address_file.exists() else "").partition(" ")
        if address not in {"", stale} and address in addresses:
            return
        assert time.monotonic() < deadline, "the worker wrote no address"
        time.sleep(0.01)


def test_a_task_that_writes_no_address_is_named(tmp_path):
    with pytest.raises(
        MisError, match=r"all 3 workers must write their address to .* within 0 s, got none from worker 0, 2"
    ):
        exchange_addresses(tmp_path / "step", 1, 3, "127.0.0.1", timeout_s=0.2)


def test_workers_of_one_host_share_it():
    rendezvous = Rendezvous(("a:1", "b:1", "a:2", "b:2", "a:3"), 3)
    assert (rendezvous.host, rendezvous.local_rank, rendezvous.local_workers) == ("b", 1, 2)
    assert Rendezvous(("[::1]:1", "[::1]:2"), 1).local_rank == 1


def test_a_port_is_free():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
    assert local_address("127.0.0.1") == local_address(None) == "127.0.0.1"


def test_a_node_that_others_cannot_reach_is_refused(tmp_path):
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_NODES": "2"}
    with pytest.raises(MisError, match=r"the name of the node 'localhost' must stand for an address .*, got 127.0.0.1"):
        find_rendezvous({**step, "SLURMD_NODENAME": "localhost", "SLURM_LAUNCH_NODE_IPADDR": "127.0.1.1"}, tmp_path, 2)
    with pytest.raises(MisError, match=r"'nowhere.invalid' must stand for .*, got none; mend /etc/hosts"):
        find_rendezvous({**step, "SLURMD_NODENAME": "nowhere.invalid"}, tmp_path, 2)
