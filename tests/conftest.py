"""What the tests share: the project's parameters and a data set so small that TensorFlow is done in a second."""

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mis.data.layouts.msd import read_msd
from mis.data.phantom.write import make_phantom
from mis.data.records.writer import write_records
from mis.params.data import LAYOUTS, PhantomParams
from mis.params.load import load_params
from mis.quiet import import_tensorflow
from mis.settings import environment
from mis.train.cluster import cluster
from tests.warm import NO_SPARE, warm_server

os.environ["MIS_LEASES"] = tempfile.mkdtemp(prefix="leases-")  # tests run at once: each process is another machine
ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "pipelines" / "plain.yaml"
TINY = PhantomParams(layout="msd", cases=8, unlabelled=1, shape=(16, 16, 16), seed=5)


def pytest_collection_modifyitems(items):
    """Put the files with slow tests first: those that take minutes begin while there is something to do beside them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def params():
    """The parameters of the tests, which stay as they are where the project's own become better ones."""
    return load_params(PARAMS)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Eight labelled cases of 16 x 16 x 16 voxels in the layout of MSD; to be read only."""
    root = tmp_path_factory.mktemp("tiny") / "Task01"
    make_phantom(root, TINY, jobs=1, progress=False)
    return root


@pytest.fixture(scope="session")
def layout_roots(tmp_path_factory):
    """Three labelled patients and one without a label, in each layout; to be read only."""
    roots = {layout: tmp_path_factory.mktemp("layouts") / layout for layout in LAYOUTS}
    for layout, root in roots.items():
        params = TINY.model_copy(update={"cases": 3, "unlabelled": 1, "layout": layout})
        make_phantom(root, params, jobs=1, progress=False)
    return roots


@pytest.fixture(scope="session")
def tiny(tiny_root):
    """The data set in `tiny_root`."""
    return read_msd(tiny_root)


@pytest.fixture(scope="session")
def records(tiny, params, tmp_path_factory):
    """The records of `tiny`: six cases to train on, one to choose by, one to test on; to be read only."""
    import_tensorflow()
    return write_records(tiny, params.data, tmp_path_factory.mktemp("records") / "records", jobs=2, progress=False)


@pytest.fixture(scope="session")
def tiny_params(params):
    """The parameters of a training that takes a second."""
    return params.override(
        {"model.depth": 1, "model.base_filters": 4, "train.epochs": 4, "train.batch_size": 4, "train.patience": 4}
    )


@pytest.fixture(scope="session")
def run_script():
    """Run Python source in a process of its own and return what it prints last, read as JSON.

    TensorFlow's devices are chosen once a process, and a process that is killed cannot be this one.
    `returncode` is what is expected; a process that ends otherwise fails the test with its stderr.
    """

    def run(source, *arguments, returncode=0, env=None):
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", source, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=env,
            timeout=300,
            check=False,
        )
        assert done.returncode == returncode, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1]) if returncode == 0 else None

    return run


@pytest.fixture(scope="session")
def warm():
    """A server that starts processes in which TensorFlow and MLflow are imported."""
    with warm_server() as server:
        yield server


@pytest.fixture(scope="session")
def nodes():
    """The nodes of a Ray cluster on this machine, the same for all tests: it takes 5 s to start."""
    with environment(NO_SPARE), cluster(None) as nodes:
        yield nodes


@cache
def can_mount():
    """Return whether this process may mount file systems."""
    with TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return mounted.returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many bytes, which is full when a test has filled it."""
    if not can_mount():
        pytest.skip("no file system can be mounted here: that needs root")
    with ExitStack() as mounted:

        def mount(size, name="disk"):
            folder = tmp_path / name
            folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
            mounted.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            return folder

        yield mount


@pytest.fixture
def full_disk(small_disk):
    """A file system of 1 MB: what does not fit finds it full."""
    return small_disk("1m")


@pytest.fixture
def project(tmp_path, records):
    """A folder with parameters and the tiny records, as `python -m mis.train` and `mis.tune` find them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "records").symlink_to(records.folder)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def storage_server():
    """A bucket on a server of S3's kind, which this process and those that it starts may use."""
    from tests.s3 import bucket

    with bucket() as found:
        yield found


@pytest.fixture
def remote(storage_server, request):
    """An empty folder of the bucket, which is not waited for long."""
    return storage_server.folder(re.sub(r"\W+", "-", request.node.name), wait_s=0.5)


@pytest.fixture
def node(monkeypatch):
    """Let this process be on a node with this folder for its temporary files."""

    def on(folder):
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))

    return on
