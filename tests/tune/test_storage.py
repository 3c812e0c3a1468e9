"""A search whose files are kept on a server of S3's kind: nodes have no folder in common, any machine goes on."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.s3 import KEY, SECRET, bucket
from tests.searches import LEARNING_RATE, OURS, kill, recorded, start, wait_until

pytestmark = pytest.mark.slow

SMALL = (
    "model.depth=1",
    "model.base_filters=4",
    "model.norm=none",
    "train.patience=99",
    "tune.num_samples=4",
    "tune.epochs=3",
    "tune.sampler.name=random",
    "tune.scheduler.name=none",
    "storage.path=s3://mis/project",
    "storage.wait_s=120",
    LEARNING_RATE,
)


@pytest.fixture
def server():
    """A bucket of this test's own."""
    with bucket() as found:
        yield found


def search(warm, project, server, *arguments, sets=SMALL, **env):
    """Start a search; each project is a machine, with temporary files of its own."""
    return start(warm, project, *arguments, sets=sets, **server.env, TMPDIR=temporary(project), **env)


def temporary(project):
    """Return the folder for a machine's temporary files: a short name, below which Ray has its sockets."""
    name = project / "temporary"
    if not name.exists():
        name.symlink_to(tempfile.mkdtemp(prefix="m"))
    return str(name.resolve())


def names_below(server, name):
    return set(server.folder(name).list())


def outcomes_there(server):
    return [name for name in names_below(server, "project") if name.endswith("/outcome.json")]


def machine(project, tmp_path, name):
    """Return another machine, which has a clone of the project and MLflow's store in common with the first."""
    other = tmp_path / name
    shutil.copytree(project / "data", other / "data", symlinks=True)
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(project / file, other / file)
    return other


def test_a_search_whose_machine_is_lost_goes_on_on_another(warm_searches, project, server, tmp_path_factory):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlruns/mlflow.db"}
    other = machine(project, tmp_path_factory.mktemp("machines"), "other")
    first = search(warm_searches, project, server, "--name", "mine", **store)
    wait_until(first, lambda: len(outcomes_there(server)) >= 1)
    kill(first)
    ended = len(outcomes_there(server))
    (project / "checkpoints").rename(project / "lost")
    second = search(warm_searches, other, server, "--resume", "mine", sets=SMALL[-3:-1], **store)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert "study mine is fetched from s3://mis/project/checkpoints/tune/mine" in err
    assert f"it goes on: {ended} of 4 trials have ended" in err
    assert "best: trial " in out
    children, parent = recorded(project)
    assert len(children) == parent.data.metrics["trials"] == 4
    assert not [name for name in names_below(server, "project") if "epoch-" in name], "they were needed for it alone"
    folders = (other, project / "lost", project / "mlruns", Path(temporary(project)), Path(temporary(other)))
    written = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any("session_" in str(path) for path in written), "Ray's own files are among them"
    for text in (KEY, SECRET):
        assert text not in out + err
        assert [path for path in written if text.encode() in path.read_bytes()] == []


def test_a_search_goes_on_while_the_server_is_away(warm_searches, project, server):
    running = search(warm_searches, project, server, "--name", "mine")
    wait_until(running, lambda: any("epoch-0001/history.json" in name for name in names_below(server, "project")))
    server.down()
    time.sleep(8)
    assert running.poll() is None
    server.up()
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "does not answer" in err
    assert "answers again" in err
    assert "best: trial " in out
    children, _ = recorded(project)
    assert [run.data.tags["mis.state"] for run in children] == ["completed"] * 4
    assert not list(Path(temporary(project)).glob("mis-storage-*/**/epoch-*")), "nothing is left on the node"
    assert len(outcomes_there(server)) == 4
    assert "project/checkpoints/tune/mine/finished".removeprefix("project/") in names_below(server, "project")


def test_a_storage_that_cannot_be_used_is_refused_at_the_start(warm_searches, project, server):
    for path, says in (
        ("s3://no-such-bucket/a", "error: the storage must let this process read and write s3://no-such-bucket/a"),
        ("elsewhere", f"error: storage.path must be a folder that all nodes see, got {project}/elsewhere"),
    ):
        running = search(warm_searches, project, server, sets=(*SMALL, f"storage.path={path}"))
        _, err = running.communicate(timeout=120)
        assert running.returncode == 2, err
        assert says in err
        assert err.count("\n") <= 2, err
    server.down()
    running = search(warm_searches, project, server, sets=(*SMALL, "storage.wait_s=1"))
    _, err = running.communicate(timeout=120)
    server.up()
    assert running.returncode == 75, "the same command may succeed in a minute"
    assert "error: s3://mis/project" in err
    assert "has not answered for 1 s" in err


def test_a_shared_folder_has_studies_and_records(warm_searches, project, tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared")
    sets = (
        *SMALL,
        f"storage.path={shared}",
        "storage.stage_to=$OWN_DISK",
        "tune.num_samples=1",
        "tune.data_memory_share=0.0",
    )
    running = start(warm_searches, project, "--name", "mine", sets=sets, OWN_DISK=f"{project}/disk")
    _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert (shared / "checkpoints" / "tune" / "mine" / "finished").exists()
    (records,) = (path for path in (shared / "records").iterdir() if path.is_dir())
    (staged,) = (path for path in (project / "disk").glob("mis-records-*/*") if path.is_dir())
    assert {path.name for path in staged.iterdir()} == {path.name for path in records.iterdir()}
    assert not (project / "checkpoints").exists()
    assert os.environ.keys().isdisjoint({"OWN_DISK"}), OURS


def test_another_machine_without_records_takes_those_of_the_storage(warm_searches, project, server, tmp_path_factory):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlruns/mlflow.db"}
    sets = (*SMALL, "tune.num_samples=1", "tune.epochs=1")
    first = search(warm_searches, project, server, "--name", "mine", sets=sets, **store)
    _, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    where = "--resume mine --set storage.path=s3://mis/project"
    assert where in err, "the command that is shown works as it stands"
    other = machine(project, tmp_path_factory.mktemp("machines"), "bare")
    shutil.rmtree(other / "data")
    words = [*where.split(), "--set", "tune.num_samples=2"]
    second = search(warm_searches, other, server, *words, sets=(), **store)
    _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert len(outcomes_there(server)) == 2
