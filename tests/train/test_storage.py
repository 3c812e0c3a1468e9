"""`python -m mis.train` with checkpoints on a server of S3's kind: another machine goes on."""

import shutil
import tempfile
import time
from dataclasses import replace

import pytest

from mis.settings import load_settings
from mis.track.base import TRAIN
from mis.track.mlflow import MlflowTracker
from tests.s3 import bucket
from tests.trainings import EPOCHS, arguments, environment

pytestmark = pytest.mark.slow


@pytest.fixture
def server():
    with bucket() as found:
        yield found


def train(warm, project, server, *, uri, **overrides):
    env = environment(**server.env, MLFLOW_TRACKING_URI=uri, TMPDIR=tempfile.mkdtemp(prefix="m"))
    overrides = {"storage__path": "s3://mis/p", "storage__wait_s": 60} | overrides
    return warm.start(*arguments(**overrides), module="mis.train", cwd=project, env=env)


def test_a_training_whose_machine_is_lost_goes_on_on_another(warm, project, server, tmp_path_factory):
    uri = f"sqlite:///{project}/mlruns/mlflow.db"
    other = tmp_path_factory.mktemp("machines") / "other"
    shutil.copytree(project, other, symlinks=True)
    first = train(warm, project, server, uri=uri)
    deadline = time.monotonic() + 120
    while not any("epoch-0003/history.json" in name for name in server.folder("p").list()):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline, "no third epoch"
        time.sleep(0.05)
    first.kill()
    first.communicate()
    second = train(warm, other, server, uri=uri)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert "best validation Dice" in out
    assert not [name for name in server.folder("p").list() if "epoch-" in name], "they were needed for it alone"
    tracker = MlflowTracker(replace(load_settings({}, project), tracking_uri=uri))
    (run,) = tracker.client.search_runs([tracker.experiment_id(TRAIN)])
    steps = [point.step for point in tracker.client.get_metric_history(run.info.run_id, "val/dice")]
    assert sorted(set(steps)) == list(range(1, EPOCHS + 1))
    assert len(steps) == EPOCHS, "no epoch was trained twice"


def test_the_workers_of_a_training_need_no_common_folder(warm, project, server):
    uri = f"sqlite:///{project}/mlruns/mlflow.db"
    running = train(
        warm, project, server, uri=uri, distribute__workers=2, train__batch_size=2, train__epochs=3, train__patience=3
    )
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "best validation Dice" in out
