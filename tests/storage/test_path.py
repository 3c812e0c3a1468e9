"""What `storage.path` may be."""

import pytest

from mis.errors import MisError
from mis.params.storage import StorageParams
from mis.settings import load_settings
from mis.storage.path import folder_of, remote_folder, with_storage


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


def test_the_folder_to_stage_to_may_be_another_on_each_node(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/local/17")
    assert str(folder_of("$TMPDIR/records", tmp_path)) == "/local/17/records"
    monkeypatch.delenv("TMPDIR")
    with pytest.raises(MisError, match=r"storage\.stage_to must be a path of set variables, got \$TMPDIR/records"):
        folder_of("$TMPDIR/records", tmp_path, "storage.stage_to")
