"""Workers that fail in every way, on a real Ray cluster; and a training that survives it."""

import os
import re
import signal
import threading
import time

import keras
import numpy as np
import pytest

from mis.errors import MisError, WorkerError
from mis.track.base import TRAIN
from mis.train.allocate import Share
from mis.train.gang import Gang, run_gang
from tests.ray_nodes import TwoNodes
from tests.searches import tracker_of

pytestmark = pytest.mark.slow


# ---- What becomes of workers that fail ----


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def refuse():
    raise MisError("the rule", got=3)


def fail():
    raise ValueError("nonsense")


WAYS = {"die": die, "stop": stop, "refuse": refuse, "raise": fail}


def fail_in_turn(worker, folder, ways):
    """Fail in another way with each start: which start this is, the files say. Worker 1 fails, or the chief."""
    start = len(list(folder.glob(f"{worker.rank}-*")))
    (folder / f"{worker.rank}-{start}").touch()
    way = ways[start]
    described = f"{worker.count} workers, {len(worker.devices.names)} device, {worker.devices.threads} thread"
    if worker.is_chief:
        worker.report(f"start {start}: {described}")
    if way == "stall":
        worker.progress()
    if worker.is_chief == way.startswith("chief: "):
        WAYS.get(way.removeprefix("chief: "), lambda: None)()
    if not way.startswith("return"):
        threading.Event().wait()  # until the process is killed
    if way == "return a lock":
        return threading.Lock()
    return f"{worker.name}, {described}"


def run(folder, ways, **options):
    messages, reports = [], []
    given = {"workers": 2, "heartbeat_s": 5, "stall_s": 3, "on_report": reports.append, "on_message": messages.append}

    def work(worker):
        return fail_in_turn(worker, folder, ways)

    try:
        result = run_gang(work, **(given | options))
    except (MisError, WorkerError) as error:
        result = error
    return result, messages, reports


def step_and_wait(worker):
    worker.progress()


def wait_without_a_step(worker):  # noqa: ARG001
    time.sleep(2.5)


@pytest.mark.usefixtures("nodes")
def test_the_time_between_two_calls_is_not_that_of_a_step():
    share = Share(devices=1, threads=1, concurrent=1, bundle={"CPU": 1})
    with Gang(1, share, lambda line: None, together=False) as gang:  # noqa: ARG005
        gang.run(step_and_wait, 5, 60, lambda report: None)  # noqa: ARG005
        before = gang.process_ids()
        time.sleep(1.5)
        gang.run(wait_without_a_step, 5, 1, lambda report: None)  # noqa: ARG005
        assert gang.process_ids() == before


@pytest.mark.usefixtures("nodes")
def test_a_node_that_is_gone_is_not_waited_for():
    share = Share(devices=1, threads=1, concurrent=1, bundle={"CPU": 1})
    gang = Gang(1, share, lambda line: None, together=False, node_names=["gone"])  # noqa: ARG005
    with pytest.raises(WorkerError, match="a node that these workers were to have is gone"), gang:
        pass


class Late:
    """A work that is handed to one of two workers at once, and to the other one when a function has returned."""

    def __init__(self, folder, wait):
        self.folder, self.wait = folder, wait

    def __call__(self, worker):
        return worker.strategy.num_replicas_in_sync

    def __reduce__(self):
        return arrive, (self.folder, self.wait)


def arrive(folder, wait):
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        wait()
    return Late(folder, wait)


def longer_than_a_heartbeat():
    time.sleep(12)


@pytest.mark.usefixtures("nodes")
def test_a_worker_that_waits_for_another_is_alive(tmp_path):
    messages = []
    replicas = run_gang(Late(tmp_path, longer_than_a_heartbeat), workers=2, heartbeat_s=5, on_message=messages.append)
    assert (replicas, messages) == (2, [])


def without_end():
    threading.Event().wait()


@pytest.mark.usefixtures("nodes")
def test_a_worker_is_not_waited_for_without_end(tmp_path):
    with pytest.raises(WorkerError, match=r"no worker has ended a step for 3 s"):
        run_gang(Late(tmp_path, without_end), workers=2, heartbeat_s=10, stall_s=3)


@pytest.mark.usefixtures("nodes")
def test_a_worker_that_waits_for_one_that_fails_ends_with_it(tmp_path):
    with pytest.raises(WorkerError, match=r"(?s)worker \d on [\d.]+ failed:.*ValueError: nonsense"):
        run_gang(Late(tmp_path, fail), workers=2, heartbeat_s=5)


@pytest.mark.usefixtures("nodes")
def test_workers_that_are_lost_are_started_again_no_more_often_than_allowed(tmp_path):
    ways = ["die", "chief: die", "stop", "stall", "die"]
    error, messages, reports = run(tmp_path, ways, max_restarts=4, together=False)
    # A chief that dies takes with it what it has just reported: who goes on reports what is in the checkpoint.
    expected = [f"start {start}: 2 workers, 1 device, 1 thread" for start in range(5)]
    assert [report for report in reports if report != expected[1]] == [expected[0], *expected[2:]]
    died, chief_died, stopped, stalled = messages
    assert re.match(r"worker 1 on [\d.]+ died \([^.]*\.\); starting again from the last checkpoint \(1 of 4\)", died)
    assert re.match(r"worker 0 on [\d.]+ died \(.*\); .*\(2 of 4\)", chief_died)
    assert re.match(r"worker 1 on [\d.]+ sent no heartbeat for 5 s; .*\(3 of 4\)", stopped)
    assert re.match(r"no worker has ended a step for 3 s \(worker 0 on .* after step 1, worker 1 .*\(4 of 4\)", stalled)
    assert isinstance(error, WorkerError)
    assert re.match(r"worker 1 on [\d.]+ died", str(error))
    assert "started again 4 times, which is all that max_restarts allows" in str(error)


@pytest.mark.usefixtures("nodes")
def test_workers_that_are_started_again_return_what_the_chief_does(tmp_path):
    result, messages, _ = run(tmp_path, ["chief: die", "return"], max_restarts=1, together=False)
    assert re.fullmatch(r"worker 0 on [\d.]+, 2 workers, 1 device, 1 thread", result)
    assert len(messages) == 1


@pytest.mark.usefixtures("nodes")
def test_what_a_worker_raises_comes_once_with_its_name(tmp_path):
    error, messages, _ = run(tmp_path, ["raise"], max_restarts=3)
    assert isinstance(error, WorkerError)
    assert re.match(r"worker 1 on [\d.]+ failed:\nTraceback", str(error))
    assert str(error).count("ValueError: nonsense") == 1
    assert not messages


@pytest.mark.usefixtures("nodes")
def test_what_cannot_be_sent_back_is_an_error_with_the_workers_name(tmp_path):
    error, messages, _ = run(tmp_path, ["return a lock"], max_restarts=3, workers=1, together=False)
    assert isinstance(error, WorkerError)
    assert re.match(r"worker 0 on [\d.]+ failed:\n", str(error))
    assert "cannot pickle '_thread.lock' object" in str(error)
    assert not messages


@pytest.mark.usefixtures("nodes")
def test_bad_input_is_one_line_with_the_workers_name(tmp_path):
    error, _, _ = run(tmp_path, ["chief: refuse"], workers=1, together=False)
    assert isinstance(error, MisError)
    assert re.fullmatch(r"worker 0 on [\d.]+: the rule, got 3", str(error))


@pytest.mark.usefixtures("nodes")
def test_more_workers_than_devices_are_refused_before_any_starts(tmp_path):
    error, messages, reports = run(tmp_path, ["return"], workers=1000)
    assert isinstance(error, MisError)
    assert "got 1000" in str(error)
    assert not messages
    assert not reports


# ---- A training on three workers of two nodes, of which a worker and then a node is lost ----


EPOCHS = 10
OVERRIDES = {
    "model.depth": 1,
    "model.base_filters": 4,
    "model.norm": "batch",
    "train.batch_size": 6,
    "train.learning_rate": 2e-4,
    "train.epochs": EPOCHS,
    "train.patience": EPOCHS,
}


def start(warm, project, env, **overrides):
    """Start `python -m mis.train`."""
    values = OVERRIDES | {f"distribute.{name}": value for name, value in overrides.items()}
    sets = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    return warm.start(*sets, module="mis.train", cwd=project, env=env)


def last_epoch(project):
    return max((int(path.name[-4:]) for path in project.glob("checkpoints/train/*/epoch-*")), default=0)


def wait_for_epoch(process, project, number):
    deadline = time.monotonic() + 120
    while last_epoch(project) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"epoch {number} never ended"
        time.sleep(0.02)


def only_run(root):
    tracker = tracker_of(root)
    (run,) = tracker.client.search_runs([tracker.experiment_id(TRAIN)])
    return run


def best_weights(root):
    """Return all weights of the best model of the only run, one after another."""
    (file,) = root.glob("mlruns/artifacts/mis/train/*/artifacts/model/*.keras")
    return np.concatenate([weight.ravel() for weight in keras.saving.load_model(file).get_weights()])


def test_a_training_outlives_a_worker_and_a_node(warm, project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("undisturbed")
    alone_env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "MIS_ROOT": str(elsewhere)}
    undisturbed = start(warm, project, alone_env)
    with TwoNodes() as cluster:
        process = start(warm, project, cluster.env, workers=3, heartbeat_s=10)
        wait_for_epoch(process, project, 3)
        first = cluster.workers()
        assert len(first) == 3
        first[1].kill()
        lost_at = time.monotonic()
        while len(cluster.workers()) != 3 or set(cluster.workers()) & set(first):
            assert time.monotonic() - lost_at < 30, "new workers must be there soon"
            time.sleep(0.1)
        wait_for_epoch(process, project, last_epoch(project) + 2)
        cluster.lose_second_node()
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "starting again from the last checkpoint (1 of 3)" in err
    assert "starting again from the last checkpoint (2 of 3)" in err
    assert "devices were lost: going on with 2 of 3 workers" in err
    assert "best validation Dice" in out
    _, err = undisturbed.communicate()
    assert undisturbed.returncode == 0, err

    survived, alone = only_run(project), only_run(elsewhere)
    assert survived.info.status == "FINISHED"
    restarts = [text for name, text in survived.data.tags.items() if name.startswith("mis.restarted.")]
    assert any("going on with 2 of 3 workers" in text for text in restarts)
    history = tracker_of(project).client.get_metric_history(survived.info.run_id, "val/dice")
    assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    # The model of the best epoch, the same in both, after up to 10 steps.
    assert survived.data.metrics["best/epoch"] == alone.data.metrics["best/epoch"]
    # All weights together: of a bias that has just left 0, rounding alone is 1.2e-4 of its own size on some CPUs. One
    # step more or less is 2e-3 of them.
    weights, expected = best_weights(project), best_weights(elsewhere)
    assert np.linalg.norm(weights - expected) < 1e-4 * np.linalg.norm(expected)
