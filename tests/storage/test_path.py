"""What `storage.path` may be."""

import os
import stat
from pathlib import Path

import pytest

from mis.errors import MisError
from mis.params.storage import StorageParams
from mis.settings import load_settings
from mis.storage.path import private_folder, remote_folder, scratch_folder, stage_folder, with_storage


@pytest.fixture
def settings(tmp_path):
    return load_settings({}, tmp_path)


def test_by_default_all_is_in_the_projects_folder(settings, tmp_path):
    own = with_storage(settings, StorageParams())
    assert own.checkpoints == tmp_path / "checkpoints"
    assert remote_folder(own, own.checkpoints / "tune" / "a") is None


def test_a_folder_that_nodes_share_has_the_checkpoints(settings, tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("SHARED", str(tmp_path / "shared"))
    for path in ("shared", "$SHARED", f"{tmp_path}/shared"):
        own = with_storage(settings, StorageParams(path=path))
        assert own.checkpoints == tmp_path / "shared" / "checkpoints"
        assert not own.is_remote
        assert remote_folder(own, own.checkpoints / "tune") is None


def test_a_folder_on_a_server_is_beside_the_projects_own(settings, tmp_path):
    own = with_storage(settings, StorageParams(path="s3://bucket/a folder/", wait_s=5.0))
    assert own.checkpoints == tmp_path / "checkpoints"
    remote = remote_folder(own, own.checkpoints / "tune" / "mine")
    assert (remote.url, remote.wait_s) == ("s3://bucket/a folder/checkpoints/tune/mine", 5.0)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere", "must be a folder that all nodes see, got "),
        ("$NOT_SET/a", "storage.path must be a path of set variables, got $NOT_SET/a"),
        ("gs://bucket", "must be a folder or begin with s3://, got gs://..."),
        ("s3://", "must be s3://BUCKET/FOLDER alone"),
        ("s3://bucket/../other", "must be s3://BUCKET/FOLDER alone"),
    ],
)
def test_others_are_refused(settings, path, says):
    with pytest.raises(MisError) as error:
        with_storage(settings, StorageParams(path=path))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "path", ["s3://key:PASSWORD@bucket/a", "s3://bucket/a?secret_key=PASSWORD", "https://a:PASSWORD@b"]
)
def test_a_password_in_the_path_is_refused_and_not_repeated(settings, path):
    with pytest.raises(MisError) as error:
        with_storage(settings, StorageParams(path=path))
    assert "PASSWORD" not in str(error.value)


def test_the_folder_to_stage_to_may_be_another_on_each_node(settings, monkeypatch):
    assert with_storage(settings, StorageParams(stage_to="$TMPDIR/records")).stage_to == "$TMPDIR/records"
    monkeypatch.setenv("TMPDIR", "/local/17")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(stage_folder("$TMPDIR/records")) == "/local/17/records"
    assert str(stage_folder("~/records")) == "/home/me/records"
    monkeypatch.delenv("TMPDIR")
    with pytest.raises(MisError, match=r"storage\.stage_to must be a path of set variables, got \$TMPDIR/records"):
        stage_folder("$TMPDIR/records")


def test_a_relative_folder_to_stage_to_is_refused_by_the_command_or_by_the_node(settings, monkeypatch):
    rule = r"^storage\.stage_to must be an absolute path, on each node, got"
    for path in ("disk", "./disk", ""):
        with pytest.raises(MisError, match=rf"{rule} {path}; begin it with /, ~ or a variable$"):
            with_storage(settings, StorageParams(stage_to=path))
    monkeypatch.setenv("OWN", "disk")
    with pytest.raises(MisError, match=rf"{rule} \$OWN, which is disk; "):
        stage_folder("$OWN")
    with pytest.raises(MisError, match=rf"{rule} ~no-such-user/a, which is ~no-such-user/a; "):
        stage_folder("~no-such-user/a")


def test_what_is_on_its_way_is_in_a_folder_that_others_cannot_read(node, tmp_path):
    node(tmp_path / "temporary")
    folder = scratch_folder()
    assert folder == scratch_folder() == tmp_path / "temporary" / f"mis-storage-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def others_may(path, mode):
    path.mkdir()
    path.chmod(mode)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: others_may(path, 0o755), "one with the permissions 755"),
        (lambda path: others_may(path, 0o720), "one with the permissions 720"),
        (lambda path: path.symlink_to("/tmp"), "a link, or a file"),  # noqa: S108 - nothing is written there
        (lambda path: path.symlink_to("nowhere"), "a link, or a file"),
        (Path.touch, "a link, or a file"),
    ],
)
def test_a_folder_that_another_may_have_made_is_refused(tmp_path, make, found):
    folder = tmp_path / "mis-storage-1"
    make(folder)
    with pytest.raises(MisError) as error:
        private_folder(folder)
    assert str(error.value).startswith(
        f"{folder} must be a folder that this user alone can read and write, got {found}; see who has made it"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(tmp_path):
    folder = private_folder(tmp_path / "mis-storage-1")
    os.chown(folder, 12345, -1)
    with pytest.raises(MisError, match="got one of the user 12345; see who has made it"):
        private_folder(folder)
