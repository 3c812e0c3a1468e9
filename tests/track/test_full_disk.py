"""A training whose disk is full, with MLflow's store on the same disk, which is the default."""

import shutil
import signal
from contextlib import suppress

import pytest

from mis.settings import load_settings
from mis.track.base import TRAIN
from mis.track.mlflow import MlflowTracker
from tests.conftest import PARAMS
from tests.trainings import EPOCHS, arguments, environment, wait_for_some_epochs

pytestmark = pytest.mark.slow

PATIENT = """
import sys
from mis.track import recording
recording.PATIENCE_S = recording.SHORT_PATIENCE_S = 1e6
from mis.train.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""A training that would wait for days for a store that takes nothing."""


@pytest.fixture
def disk(small_disk, records):
    """A small disk with the project on it, the records too."""
    disk = small_disk("24m")
    (disk / "data").mkdir()
    shutil.copytree(records.folder, disk / "data" / "records")
    (disk / "dvc.yaml").write_text("stages: {}\n")
    (disk / "params.yaml").write_bytes(PARAMS.read_bytes())
    return disk


def train(warm, disk):
    return warm.start(*arguments(train__seed=300), source=PATIENT, cwd=disk, env=environment())


def fill(path):
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_ends_a_training_with_one_line_and_the_same_command_goes_on(warm, disk):
    process = train(warm, disk)
    wait_for_some_epochs(process, disk)
    process.send_signal(signal.SIGSTOP)
    fill(disk / "hog")
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: there must be space on the disk of ")
    assert line.endswith("got none left; make space, and the same command goes on from what is there")
    assert "Traceback" not in errors
    assert "sqlalche.me" not in errors
    # Its store may have found the disk full before the training did.
    others = [line for line in errors.splitlines() if "MLflow" in line]
    assert len(others) <= 1
    assert all(line.startswith("there is no space for MLflow's store (") for line in others)

    process = train(warm, disk)  # before there is space
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert len([line for line in errors.splitlines() if line.startswith("error: there must be space on the disk")]) == 1
    assert "Traceback" not in errors

    (disk / "hog").unlink()
    process = train(warm, disk)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    store = MlflowTracker(load_settings({"MIS_ROOT": str(disk)}))
    (run,) = store._search(TRAIN, [])
    points = store.client.get_metric_history(run.info.run_id, "val/dice")
    assert (run.info.status, sorted(point.step for point in points)) == ("FINISHED", list(range(1, EPOCHS + 1)))
    assert list((disk / "mlruns" / "outbox").iterdir()) == []
