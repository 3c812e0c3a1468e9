"""`dvc push` from one clone and `dvc pull` in a fresh one: through a folder, and through a server of S3's kind."""

import tarfile
import urllib.request

import pytest
from moto.server import ThreadedMotoServer

from mis.data.versions.hashing import content_hash
from tests.data.serving import Project, contents, serving

pytestmark = pytest.mark.slow

NAME = "Task01_BrainTumour"
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_root):
    """A project with a phantom, an imported data set and its records; the server it came from is gone."""
    project = Project.copied(tmp_path_factory.mktemp("made"))
    project.run("sed", "-i", r"s/^  cases: [0-9]*/  cases: 4/; s/shape: \[.*\]/shape: [16, 16, 16]/", "params.yaml")
    folder = tmp_path_factory.mktemp("www")
    with tarfile.open(folder / f"{NAME}.tar", "w") as archive:
        archive.add(tiny_root, NAME)
    with serving(folder) as server:
        project.url = server.url(f"{NAME}.tar")
        project.data("import", project.url)
    project.run("dvc", "repro", "--quiet", "phantom", "preprocess")
    project.commit("made")
    return project


@pytest.fixture(scope="module")
def s3():
    """The address of a server of S3's kind that has the bucket `mis`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with urllib.request.urlopen(urllib.request.Request(f"{address}/mis", method="PUT")):  # noqa: S310
        pass
    yield address
    server.stop()


@pytest.fixture(params=["a folder", "S3"])
def shared(request, made, tmp_path):
    """The project with a remote that is the default one, as docs/data_versions.md has it."""
    project = made.clone(tmp_path / "shared")
    # A clone has no data: it takes them from the first one's cache, which pushes what it has.
    project.run("dvc", "cache", "dir", "--local", str(made.root / ".dvc" / "cache"))
    if request.param == "a folder":
        project.run("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    else:
        project.env |= KEYS
        project.run("dvc", "remote", "add", "--default", "shared", "s3://mis/dvc")
        project.run("dvc", "remote", "modify", "shared", "endpointurl", request.getfixturevalue("s3"))
    project.commit("remote")
    return project


def test_what_one_clone_pushes_a_fresh_one_pulls(made, shared, tmp_path):
    assert "files pushed" in shared.run("dvc", "push").stdout
    assert "up to date" in shared.run("dvc", "push").stdout
    clone = shared.clone(tmp_path / "clone")
    clone.env |= shared.env | {"PYTHONPATH": str(clone.root)}
    clone.run("dvc", "pull", "--allow-missing")  # the later stages have not run
    for name in ("data/records", "data/raw/phantom"):
        assert contents(clone.root / name) == contents(made.root / name)
    assert (clone.root / f"data/raw/{NAME}.tar").read_bytes() == (made.root / f"data/raw/{NAME}.tar").read_bytes()
    assert clone.git("status", "--porcelain") == ""
    # The archive has come with the rest; what was unpacked from it is unpacked again, without the web server.
    assert "tar is there already" in clone.data("import", made.url).stdout
    assert content_hash(clone.root, f"data/raw/{NAME}") == content_hash(made.root, f"data/raw/{NAME}")
    assert "up to date" in clone.run("dvc", "status", "phantom", "preprocess").stdout
    assert clone.git("status", "--porcelain") == ""


def test_import_takes_the_archive_from_the_remote_where_its_server_is_gone(made, shared, tmp_path):
    shared.run("dvc", "push")
    clone = shared.clone(tmp_path / "clone")
    clone.env |= shared.env | {"PYTHONPATH": str(clone.root)}
    assert "from DVC's cache or remote" in clone.data("import", made.url).stdout
    assert contents(clone.root / "data/raw" / NAME) == contents(made.root / "data/raw" / NAME)
