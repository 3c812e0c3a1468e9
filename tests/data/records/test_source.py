"""Records on each node's own disk: copied once, compared with their hashes, from a folder or from a server."""

import shutil
from dataclasses import replace
from multiprocessing.pool import ThreadPool

import pytest

from mis.data.records.reader import read_records
from mis.data.records.source import RecordsSource, publish
from mis.errors import MisError, WorkerError
from mis.settings import load_settings


@pytest.fixture
def said():
    return []


@pytest.fixture
def settings(tmp_path):
    return load_settings({}, tmp_path)


@pytest.fixture(params=["a folder", "a server"])
def source(request, records, tmp_path):
    """Records that are to be copied to `disk`, from where others than the tests may damage them."""
    if request.param == "a folder":
        folder = tmp_path / "records"
        shutil.copytree(records.folder, folder)
        return RecordsSource(folder, records.digest, stage_to=str(tmp_path / "disk"))
    remote = request.getfixturevalue("remote")
    for path in records.folder.iterdir():
        remote.put(path, path.name)
    return RecordsSource(tmp_path / "not on this node", records.digest, remote, str(tmp_path / "disk"))


def damage(source, name, content):
    if source.remote is not None:
        source.remote.write(content, name)
    else:
        (source.folder / name).write_bytes(content)


def record_of(records, case):
    content = records.path(case).read_bytes()
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


def test_by_default_they_are_read_where_they_are(records, settings, said):
    source = publish(records, settings, said.append)
    assert source == RecordsSource(records.folder, records.digest)
    assert source.on_this_node(said.append) == records.folder
    assert said == []


def test_they_are_copied_once_and_are_the_same(source, records, said):
    folder = source.on_this_node(said.append)
    assert folder.parents[1].name == "disk"
    copied = read_records(folder)
    assert copied == replace(records, folder=folder)
    for case in records.split.all:
        assert copied.path(case).read_bytes() == records.path(case).read_bytes()
    assert [line.partition(" to ")[0].partition(" (")[0] for line in said] == ["8 records"]
    assert source.on_this_node(said.append) == folder
    assert len(said) == 1


def test_many_processes_of_a_node_copy_them_once(source, said):
    with ThreadPool(6) as pool:
        folders = pool.map(lambda _: source.on_this_node(said.append), range(6))
    assert len(set(folders)) == len(said) == 1


def test_a_record_that_is_not_as_it_was_written_is_refused_and_copied_again_when_it_is(source, records, said):
    case = records.split.val[0]
    damage(source, f"{case}.tfrecord", record_of(records, case))
    with pytest.raises(MisError, match=rf"{case}\.tfrecord must be as it was written: its hash is another"):
        source.on_this_node(said.append)
    damage(source, f"{case}.tfrecord", records.path(case).read_bytes())
    folder = source.on_this_node(said.append)
    assert read_records(folder).path(case).read_bytes() == records.path(case).read_bytes()


def test_a_copy_that_was_killed_goes_on(source, said, monkeypatch):
    copied, copy = [], RecordsSource._copy

    def dies(self, name, folder, say):
        if len(copied) == 5:
            raise KeyboardInterrupt
        copied.append(name)
        copy(self, name, folder, say)

    with monkeypatch.context() as patched:
        patched.setattr(RecordsSource, "_copy", dies)
        with pytest.raises(KeyboardInterrupt):
            source.on_this_node(said.append)
    assert not source._staged.exists()
    source.on_this_node(said.append)
    assert "5 records" in said[-1], "three were there"


def test_records_that_are_not_there_are_an_error_in_one_line(source, records, said):
    damaged = f"{records.split.test[0]}.tfrecord"
    if source.remote is None:
        (source.folder / damaged).unlink()
        with pytest.raises(FileNotFoundError):
            source.on_this_node(said.append)
    else:
        source.remote.delete([damaged])
        with pytest.raises(MisError, match="the records must exist, got none in s3://"):
            source.on_this_node(said.append)


def test_a_server_gets_each_record_once_and_an_interrupted_copy_goes_on(records, settings, remote, said):
    bucket = remote.url.removeprefix("s3://").partition("/")[0]
    kept = replace(settings, storage=f"s3://{bucket}/{remote.url.rpartition('/')[2]}", storage_wait_s=0.5)
    there = remote.below("records", records.digest)
    case = records.split.train[0]
    there.put(records.path(case), f"{case}.tfrecord")
    source = publish(records, kept, said.append)
    assert source.remote.url == there.url
    assert said[0].startswith("9 files of records"), "seven records, the split and the index"
    assert set(there.list()) == {path.name for path in records.folder.iterdir()}
    publish(records, kept, said.append)
    assert len(said) == 1
    folder = replace(source, stage_to=None).on_this_node(said.append)
    assert read_records(folder).digest == records.digest
    assert "mis-storage-" in str(folder), "without another folder: that of temporary files"


def test_a_server_that_is_away_is_waited_for(records, settings, storage_server, said):
    kept = replace(settings, storage="s3://mis/away", storage_wait_s=0.5)
    storage_server.down()
    try:
        with pytest.raises(WorkerError, match="has not answered for 0 s"):
            publish(records, kept, said.append)
    finally:
        storage_server.up()
