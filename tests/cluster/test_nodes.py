"""Searches and trainings over two nodes with addresses of their own; one is cut off, or lost with Ray's head."""

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from mis.settings import Settings
from mis.storage.remote import AwayError
from mis.track.base import TRAIN
from mis.track.mlflow import MlflowTracker
from mis.train.checkpoint import HISTORY
from mis.train.remote_checkpoints import name_here
from mis.tune.study.store import StudyStore
from tests.cluster.conftest import check_whole, epochs_of, hosts, hosts_with_epochs, sets
from tests.cluster.ray_machines import RayMachines, wait
from tests.s3 import bucket

pytestmark = pytest.mark.slow


@pytest.fixture
def ray_machines(request, machines, project, tmp_path):
    """Ray on two machines; it has a core of each, unless a test asks for more: a process takes seconds to begin."""
    ray = RayMachines(machines, project, tmp_path, cores=getattr(request, "param", 1))
    try:
        ray.start()
        yield ray
    finally:
        ray.stop()


def finish(process):
    """Wait for a command to end well, and return what it has said."""
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-4000:]
    return " ".join(err.split())


@pytest.mark.parametrize("allocation", ["fixed", "elastic"])
def test_trials_of_a_node_that_is_cut_off_go_on_elsewhere(ray_machines, project, allocation):
    words = sets(tune__epochs=40, tune__num_samples=3, tune__allocation=allocation, train__batch_size=4)
    search = ray_machines.command("-m", "mis.tune", "--name", "cut", *words)
    store = project.folder / "checkpoints" / "tune" / "cut"
    wait(lambda: "n2" in hosts_with_epochs(store, 2), "epochs on the second node")
    # From here on nothing that one node sends arrives at the other; its processes, and the file system, are there.
    ray_machines.machines.cut_off("n2")
    said = finish(search)
    assert "goes on from its last epoch" in said
    assert len(check_whole(project, "cut", 40).trials()) == 3


@pytest.fixture
def apart(machines, project, tmp_path):
    """Ray on two machines, of which the second sees nothing of the project's checkpoints and records, and a server."""
    with bucket(machines.gateway) as server:
        project.env |= server.env
        (project.folder / "checkpoints").mkdir()
        for folder in ("checkpoints", "data"):
            subprocess.run(machines.on("n2", "mount", "-t", "tmpfs", "none", project.folder / folder), check=True)
        ray = RayMachines(machines, project, tmp_path, cores=1)
        try:
            ray.start()
            yield ray, server
        finally:
            ray.stop()


def hosts_of_sent(machines, remote):
    """Return the names of the machines that run a trial of which a server has a whole epoch."""
    try:
        trials = {name.partition("/epoch-")[0] for name in remote.list() if name.endswith(f"/{HISTORY}")}
    except AwayError:  # it is slow on a busy machine
        return set()
    folders = {name_here(remote.below(*trial.split("/"))) for trial in trials}
    disks = {name: Path(f"/proc/{first.pid}/root{machines.local}") for name, first in machines.first_processes.items()}
    found = {name: disk.glob("mis-storage-*/checkpoints/*") for name, disk in disks.items()}
    return {name for name, paths in found.items() if folders & {path.name for path in paths}}


def test_nodes_that_have_no_folder_in_common_share_a_search_by_a_server(apart, project):
    ray_machines, server = apart
    refused = ray_machines.run("-m", "mis.tune", *sets())
    assert refused.returncode == 2
    assert "every node must see" in " ".join(refused.stderr.split())
    words = sets(tune__epochs=60, tune__num_samples=3, storage__path="s3://mis/project")
    search = ray_machines.command("-m", "mis.tune", "--name", "apart", *words)
    remote = server.folder("project")
    wait(lambda: "n2" in hosts_of_sent(ray_machines.machines, remote), "epochs of the second node")
    server.down()
    time.sleep(3)
    server.up()
    ray_machines.machines.cut_off("n2")
    said = finish(search)
    assert "goes on from its last epoch" in said
    assert len(check_whole(project, "apart", 60).trials()) == 3
    assert not [name for name in remote.list() if "epoch-" in name]


def test_a_search_whose_head_is_lost_is_resumed(ray_machines, project):
    words = sets(tune__epochs=40, tune__num_samples=3)
    search = ray_machines.command("-m", "mis.tune", "--name", "head", *words)
    store = project.folder / "checkpoints" / "tune" / "head"
    wait(lambda: max(map(epochs_of, store.glob("trials/*")), default=0) >= 5, "epochs")
    ray_machines.lose_head()
    search.communicate(timeout=60)
    assert search.returncode != 0
    interrupted = StudyStore.open(store).interrupted()
    assert interrupted
    ray_machines.stop()
    ray_machines.start()
    resumed = ray_machines.run("-m", "mis.tune", "--resume", "head")
    assert resumed.returncode == 0, resumed.stderr
    assert len(check_whole(project, "head", 40).trials()) == 3
    assert hosts(StudyStore.open(store)) == {"n1", "n2"}


@pytest.mark.parametrize("ray_machines", [2], indirect=True)
def test_a_training_over_two_nodes_goes_on_without_the_one_that_is_cut_off(ray_machines, project):
    words = sets(train__epochs=30, train__patience=30, train__batch_size=4)
    words += ["--set", "distribute.workers=2", "--set", "distribute.max_restarts=3"]
    training = ray_machines.command("-m", "mis.train", *words)
    wait(lambda: max(map(epochs_of, (project.folder / "checkpoints").glob("*/*")), default=0) >= 3, "epochs")
    ray_machines.machines.cut_off("n2")
    said = finish(training)
    assert "starting again from the last checkpoint (1 of 3)" in said
    settings = Settings(project.folder, project.folder, f"sqlite:///{project.folder}/mlruns/mlflow.db")
    client = MlflowTracker(settings).client
    (run,) = client.search_runs([client.get_experiment_by_name(TRAIN).experiment_id])
    points = client.get_metric_history(run.info.run_id, "val/dice")
    assert sorted(point.step for point in points) == list(range(1, 31))
    # Both workers have found room on the node that is left: a core for each.
    assert {point.value for point in client.get_metric_history(run.info.run_id, "time/devices")} == {2.0}


CONNECT = "import ray; ray.init(log_to_driver=False); print(len(ray.nodes()))"


def test_who_has_no_token_does_not_reach_ray_and_nothing_else_is_open(ray_machines, machines):
    reached = ray_machines.run("-c", CONNECT)
    assert (reached.returncode, reached.stdout.strip()) == (0, "2"), reached.stderr
    for token in ({"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        refused = ray_machines.run("-c", CONNECT, env=token)
        assert refused.returncode != 0
        assert "InvalidAuthToken" in refused.stderr
    for name in machines.names:
        opened = Counter(
            ("the node's" if machines.address(name) in address else "all", process)
            for address, process in machines.listening(name).items()
            if not address.startswith(("127.", "[::1]", "[::ffff:127."))
        )
        idle = opened.pop(("all", "ray::IDLE"), 0)
        assert idle <= 2, "a worker for each core"
        # The table of docs/security.md; `python` is the server for Ray's clients.
        both = {("all", "raylet"): 2, ("the node's", "ray::RuntimeEnv"): 1}
        first = {("all", "gcs_server"): 1, ("the node's", "python"): 1}
        assert opened == both | (first if name == "n1" else {})
