"""A folder on a server of S3's kind: objects that are there whole or not at all, and a server that goes away."""

import threading

import pytest

from mis.errors import MisError, WorkerError
from mis.storage.remote import AwayError, RefusedError, RemoteFolder
from tests.s3 import SECRET


def test_what_is_put_is_listed_read_fetched_and_deleted(remote, tmp_path):
    assert remote.list() == {}
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    remote.put(source, "a/whole")
    remote.put(source, "part", 4)
    remote.write(b"text", "a/b/text")
    assert {name: entry.size for name, entry in remote.list().items()} == {"a/whole": 10, "part": 4, "a/b/text": 4}
    assert {name: entry.size for name, entry in remote.below("a").list().items()} == {"whole": 10, "b/text": 4}
    assert remote.read("part") == b"0123"
    assert remote.get("a/whole", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == b"0123456789"
    remote.write(b"other", "part")
    assert remote.read("part") == b"other"
    remote.delete(["part", "a/whole", "never there"])
    assert list(remote.list()) == ["a/b/text"]


def test_what_is_not_there_is_none_and_leaves_no_file(remote, tmp_path):
    assert remote.read("nothing") is None
    (tmp_path / "kept").write_text("as before")
    assert not remote.get("nothing", tmp_path / "kept")
    assert not remote.get("nothing", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "as before"


def test_a_missing_file_of_this_machine_is_its_own_error(remote, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        remote.put(tmp_path / "nowhere", "object")


@pytest.mark.usefixtures("storage_server")
def test_a_bucket_that_does_not_exist_is_refused_in_one_line():
    folder = RemoteFolder("s3://no-such-bucket/folder", 0.5)
    with pytest.raises(RefusedError, match="no such bucket"):
        folder.write(b"", "a")
    with pytest.raises(
        MisError, match=r"must let this process read and write s3://no-such-bucket/folder \(no such"
    ) as e:
        folder.patiently(lambda: folder.write(b"", "a"), print)
    assert "AWS_SECRET_ACCESS_KEY" in str(e.value), "what is to be set"
    assert SECRET not in str(e.value)


def test_a_server_that_is_away_is_waited_for_and_said_so(storage_server, remote):
    said = []
    remote.write(b"before", "object")
    patient = RemoteFolder(remote.url, 60)
    storage_server.down()
    try:
        with pytest.raises(AwayError, match="network connection: could not connect"):
            remote.read("object")
        with pytest.raises(WorkerError, match=r"has not answered for 0 s \(network connection"):
            remote.patiently(lambda: remote.read("object"), said.append)
    finally:
        threading.Timer(1.0, storage_server.up).start()
    said.clear()
    assert patient.patiently(lambda: patient.read("object"), said.append) == b"before"
    assert [line.partition(remote.url)[2] for line in said] == [
        " does not answer (network connection: could not connect to server): it is waited for, for 60 s at most",
        " answers again: what has waited is there",
    ]
