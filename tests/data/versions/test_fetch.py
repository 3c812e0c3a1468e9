"""A data set from a real web server, which may break off, into a copy of the repository with the real DVC."""

import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from mis.data.versions.fetch import ImportPaths
from mis.errors import MisError
from mis.params.load import load_params
from tests.data.serving import contents, serving, shown

pytestmark = pytest.mark.slow

NAME = "Task01_BrainTumour"
TAR = f"{NAME}.tar"


@pytest.fixture
def project(origin, tmp_path):
    return origin.clone(tmp_path / "project")


@pytest.fixture
def server(tmp_path, tiny_root):
    (tmp_path / "www").mkdir()
    pack(tmp_path / "www" / TAR, tiny_root)
    with serving(tmp_path / "www") as server:
        yield server


@pytest.fixture(scope="module")
def imported(origin, tmp_path_factory, tiny_root):
    """A project with an imported data set, committed, whose server goes on; each test leaves it as it was."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "www").mkdir()
    pack(folder / "www" / TAR, tiny_root)
    project = origin.clone(folder / "project")
    with serving(folder / "www") as server:
        project.server = server
        project.data("import", server.url(TAR))
        project.commit("imported")
        yield project


def pack(path, folder, mode="w"):
    with tarfile.open(path, mode) as archive:
        archive.add(folder, NAME)


def root_of(project):
    return load_params(project.root / "params.yaml").data.root


def raw(project):
    return project.root / "data" / "raw"


def test_an_import_is_there_unpacked_and_visible_to_git(project, server, tiny_root):
    said = project.data("import", server.url(TAR)).stdout
    assert "data.root is now data/raw/Task01_BrainTumour" in said
    assert f"next: git add data/raw/{TAR}.dvc params.yaml && git commit, then dvc repro" in said
    assert contents(raw(project) / NAME) == contents(tiny_root)
    assert root_of(project) == f"data/raw/{NAME}"
    assert shown(raw(project)) == [NAME, TAR, f"{TAR}.dvc"]
    project.git("add", "--all")
    assert project.git("diff", "--cached", "--name-only").split() == [f"data/raw/{TAR}.dvc", "params.yaml"]


def test_a_second_time_changes_nothing_and_asks_for_nothing(imported):
    project, server = imported, imported.server
    files = [path for path in [*raw(project).rglob("*"), project.root / "params.yaml"] if path.is_file()]
    before, asked = {path: path.stat().st_mtime_ns for path in files}, len(server.asked)
    said = project.data("import", server.url(TAR)).stdout
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert len(server.asked) == asked
    assert said.count("is there already") == 2


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_a_gzipped_one_is_the_same(project, server, tiny_root, suffix):
    pack(server.folder / f"{NAME}{suffix}", tiny_root, "w:gz")
    url = server.url(f"{NAME}{suffix}?version=2&key=a%2Fb+c")
    project.data("import", url)
    assert contents(raw(project) / NAME) == contents(tiny_root)
    assert "is there already" in project.data("import", url).stdout


@pytest.mark.parametrize(
    ("breaks", "says"), [("with its length", "Not enough data"), ("without its length", "must come whole")]
)
def test_a_download_that_breaks_off_leaves_nothing_and_ends_well_the_next_time(
    project, server, tiny_root, breaks, says
):
    server.breaks = breaks
    assert says in project.refused("import", server.url(TAR))
    assert shown(raw(project)) == []
    assert project.git("status", "--porcelain") == ""
    server.breaks = None
    project.data("import", server.url(TAR))
    assert contents(raw(project) / NAME) == contents(tiny_root)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_killed_ends_well_the_next_time(project, server, tiny_root, number):
    server.breaks = "stalls"
    command = [sys.executable, "-m", "mis.data", "import", server.url(TAR)]
    process = subprocess.Popen(command, cwd=project.root, env=project.env, stderr=subprocess.PIPE, text=True)
    try:
        while len(server.asked) < 3 or not list(raw(project).glob(".*.tmp")):  # DVC asks first whether it is there
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert "Traceback" not in errors
    assert shown(raw(project)) == []
    server.breaks = None
    server.go_on.set()
    for left in raw(project).glob(".*.tmp"):
        os.utime(left, (0, 0))  # as if DVC had long given it up
    project.data("import", server.url(TAR))
    assert contents(raw(project) / NAME) == contents(tiny_root)
    assert not list(raw(project).glob(".*.tmp"))


def test_nothing_at_the_url_is_said_with_the_reason(project, server):
    assert "404" in project.refused("import", server.url("none.tar"))
    assert "Connection refused" in project.refused("import", "http://127.0.0.1:9/none.tar")
    assert "no-such-host.invalid" in project.refused("import", "http://no-such-host.invalid/none.tar")
    assert shown(raw(project)) == []


def test_what_is_no_tar_file_leaves_nothing(project, server):
    (server.folder / "page.tar").write_text("<html>please log in</html>")
    assert "must be a whole tar file" in project.refused("import", server.url("page.tar"))
    assert shown(raw(project)) == []


def test_what_must_not_be_unpacked_leaves_no_folder(project, server, tmp_path):
    with tarfile.open(server.folder / "evil.tar", "w") as archive:
        archive.add(__file__, "first")
        archive.add(__file__, "../../../evil")
    assert "must stay in its folder" in project.refused("import", server.url("evil.tar"))
    assert shown(raw(project)) == ["evil.tar", "evil.tar.dvc"]
    assert not list(tmp_path.rglob("evil"))
    assert root_of(project) == "data/raw/phantom"


def test_what_is_in_the_way_stays(project, server):
    raw(project).mkdir(parents=True)
    (raw(project) / TAR).write_text("mine")
    assert "a file of yours" in project.refused("import", server.url(TAR))
    (raw(project) / TAR).unlink()
    (raw(project) / NAME).mkdir()
    assert "one of another origin" in project.refused("import", server.url(TAR))
    (raw(project) / NAME).rmdir()
    (raw(project) / NAME).symlink_to(project.root)
    assert "a link" in project.refused("import", server.url(TAR))
    assert server.asked == []


def test_another_url_of_the_same_name_is_refused(imported):
    url = imported.server.url
    assert f"that of {url(TAR)}" in imported.refused("import", url(f"other/{TAR}"))


def test_a_folder_that_was_removed_is_unpacked_again(imported, tiny_root):
    project, server = imported, imported.server
    project.run("rm", "-r", f"data/raw/{NAME}")
    asked = len(server.asked)
    project.data("import", server.url(TAR))
    assert contents(raw(project) / NAME) == contents(tiny_root)
    assert len(server.asked) == asked


def test_a_fresh_clone_gets_the_same_from_the_url(imported, tiny_root, tmp_path):
    server, clone = imported.server, imported.clone(tmp_path / "clone")
    assert "the same that" in clone.data("import", server.url(TAR)).stdout
    assert contents(raw(clone) / NAME) == contents(tiny_root)
    assert clone.git("status", "--porcelain") == ""
    (raw(clone) / TAR).unlink()
    assert "from DVC's cache" in clone.data("import", server.url(TAR)).stdout


def test_a_fresh_clone_refuses_what_is_another_file_by_now(imported, tmp_path):
    server, clone = imported.server, imported.clone(tmp_path / "clone")
    path = server.folder / TAR
    before = path.rename(path.with_name("before"))
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "other")
    try:
        assert "must still have the file" in clone.refused("import", server.url(TAR))
    finally:
        before.rename(path)
    assert clone.git("status", "--porcelain") == ""
    assert shown(raw(clone)) == [f"{TAR}.dvc"]


def test_a_remote_that_cannot_be_reached_leaves_the_url(imported, tiny_root, tmp_path):
    server, clone = imported.server, imported.clone(tmp_path / "clone")
    clone.run("dvc", "remote", "add", "--default", "gone", "http://127.0.0.1:9/none")
    assert "downloaded, the same that" in clone.data("import", server.url(TAR)).stdout
    assert contents(raw(clone) / NAME) == contents(tiny_root)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("Task01.tar", "with its scheme"),
        ("/data/Task01.tar", "with its scheme"),
        ("https://host.example/Task01.zip", "must end in .tar"),
        ("https://host.example/", "must end in .tar"),
        ("https://me:secret@host.example/Task01.tar", "without a password"),
        ("https://host.example/.tar", "must have a name"),
        ("https://host.example/phantom.tar.gz", "phantom"),
        ("https://host.example/%2e%2e%2f.x.tar", "must have a name"),
    ],
)
def test_what_is_no_url_of_an_archive_is_refused(tmp_path, url, says):
    with pytest.raises(MisError, match=says) as caught:
        ImportPaths.of(url, tmp_path)
    assert "secret" not in str(caught.value)
