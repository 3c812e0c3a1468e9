"""Records on each node's own disk: copied once, compared with their hashes, from a folder or from a server."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from filelock import FileLock

from mis.data.records.reader import read_records
from mis.data.records.source import RecordsSource, publish, source_of
from mis.errors import MisError, WorkerError
from mis.files import make_folder
from mis.settings import load_settings

ROOT = Path(__file__).parents[3]


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


def test_records_that_are_held_in_memory_are_not_copied(source, records, said):
    with ThreadPool(4) as pool:
        (folder,) = set(pool.map(lambda _: source.on_this_node(said.append, index_only=True), range(4)))
    assert said == []
    assert read_records(folder, complete=False) == replace(records, folder=folder)
    if source.remote is None:
        assert folder == source.folder, "nodes see it"
        assert not (folder.parent / "disk").exists()
    else:
        assert {path.name for path in folder.iterdir()} == {"index.json", "split.json"}
        assert folder.name == f"{records.digest}-index"
    whole = source.on_this_node(said.append)
    assert read_records(whole) == replace(records, folder=whole), "they are copied where they are read"


def test_who_waits_for_another_process_says_so(source, said, monkeypatch):
    monkeypatch.setattr("mis.data.records.source.SAY_AFTER_S", 0.05)
    lock = source._staged().with_suffix(".lock")
    make_folder(lock.parent)
    waits = threading.Event()

    def say(line):
        said.append(line)
        waits.set()

    with ThreadPool(1) as pool:
        with FileLock(lock):
            copying = pool.apply_async(source.on_this_node, (say,))
            assert waits.wait(60)
        folder = copying.get(60)
    assert said[0].endswith(f"copying the records to {folder} and holds {lock}: it is waited for")
    assert read_records(folder).digest == source.digest


def test_a_record_that_is_not_as_it_was_written_is_refused_and_copied_again_when_it_is(source, records, said):
    case = records.split.val[0]
    damage(source, f"{case}.tfrecord", record_of(records, case))
    with pytest.raises(MisError, match=rf"{case}\.tfrecord must be as it was written: its hash is another"):
        source.on_this_node(said.append)
    damage(source, f"{case}.tfrecord", records.path(case).read_bytes())
    folder = source.on_this_node(said.append)
    assert read_records(folder).path(case).read_bytes() == records.path(case).read_bytes()


def test_copied_records_that_are_gone_or_cut_off_are_copied_again_at_the_next_start(source, records, said):
    folder = source.on_this_node(said.append)
    first, second, *_ = records.split.all
    (folder / f"{first}.tfrecord").unlink()
    os.truncate(folder / f"{second}.tfrecord", 100)
    assert source.on_this_node(said.append) == folder
    assert "2 records" in said[-1]
    assert read_records(folder) == replace(records, folder=folder)
    for case in (first, second):
        assert (folder / f"{case}.tfrecord").read_bytes() == records.path(case).read_bytes()
    (folder / "index.json").write_text("{")
    assert source.on_this_node(said.append) == folder
    assert read_records(folder) == replace(records, folder=folder)


def test_copied_records_are_in_a_folder_that_others_cannot_read(source, said):
    folder = source.on_this_node(said.append)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    folder.parent.chmod(0o755)
    with pytest.raises(MisError, match=rf"{folder.parent} must be a folder that this user alone can read and write"):
        source.on_this_node(said.append)


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
    assert not source._staged().exists()
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


PUBLISH = """
import json, sys
from dataclasses import replace
from pathlib import Path
from mis.data.records.reader import read_records
from mis.data.records.source import publish
from mis.settings import load_settings

records, shared = map(Path, sys.argv[1:])
settings = replace(load_settings({}, shared), storage=str(shared))
said = []
sys.stdin.read()
source = publish(read_records(records), settings, said.append)
print(json.dumps([str(source.folder), said, len(read_records(source.folder).split.all)]))
"""


def test_many_processes_publish_into_a_shared_folder_once_and_whole(records, tmp_path):
    command = [sys.executable, "-c", PUBLISH, records.folder, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ExitStack() as stack:
        begun = [stack.enter_context(subprocess.Popen(command, text=True, cwd=ROOT, **pipes)) for _ in range(4)]
        for process in begun:  # they begin together, when all have imported what they need
            process.stdin.close()
        ended = [(process.stdout.read(), process.stderr.read(), process.wait()) for process in begun]
    assert [code for _, _, code in ended] == [0] * 4, ended
    found = [json.loads(out) for out, _, _ in ended]
    assert {folder for folder, _, _ in found} == {str(tmp_path / "records" / records.digest)}
    assert {cases for _, _, cases in found} == {len(records.split.all)}
    assert sum(len(said) for _, said, _ in found) == 1
    assert {path.name for path in (tmp_path / "records").iterdir()} == {records.digest, f"{records.digest}.lock"}


def test_threads_publish_into_a_shared_folder_once_and_whole(records, settings, tmp_path, said):
    kept = replace(settings, storage=str(tmp_path))
    with ThreadPool(6) as pool:
        sources = pool.map(lambda _: publish(records, kept, said.append), range(6))
    assert len(set(sources)) == len(said) == 1
    assert read_records(sources[0].folder) == replace(records, folder=sources[0].folder)


def test_where_records_will_be_is_known_without_copying_them(records, settings, remote, tmp_path, said):
    for storage in (None, str(tmp_path), remote.url):
        kept = replace(settings, storage=storage, stage_to="$TMPDIR")
        source = source_of(records, kept)
        assert remote.list() == {}
        assert not (tmp_path / "records").exists()
        if storage != remote.url:
            assert source == publish(records, kept, said.append)
            shutil.rmtree(tmp_path / "records", ignore_errors=True)
    assert source.remote.url == f"{remote.url}/records/{records.digest}"
    assert source == publish(records, kept, said.append)


def test_a_damaged_record_is_not_published_into_a_shared_folder(records, settings, tmp_path, said):
    case, damaged = records.split.val[0], tmp_path / "damaged"
    shutil.copytree(records.folder, damaged)
    (damaged / f"{case}.tfrecord").write_bytes(record_of(records, case))
    kept = replace(settings, storage=str(tmp_path / "shared"))
    with pytest.raises(MisError, match=rf"{damaged}/{case}\.tfrecord must be as it was written"):
        publish(read_records(damaged), kept, said.append)
    assert not source_of(records, kept).folder.exists()


def test_a_server_gets_each_record_once_and_an_interrupted_copy_goes_on(
    records, settings, remote, node, tmp_path, said
):
    node(tmp_path / "temporary")
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
    own = tmp_path / "temporary" / f"mis-storage-{os.getuid()}"
    assert folder.parent.parent == own, "without another folder: that of temporary files"


def test_a_server_that_is_away_is_waited_for(records, settings, storage_server, said):
    kept = replace(settings, storage="s3://mis/away", storage_wait_s=0.5)
    storage_server.down()
    try:
        with pytest.raises(WorkerError, match="has not answered for 0 s"):
            publish(records, kept, said.append)
    finally:
        storage_server.up()


def test_a_folder_to_which_nothing_can_be_copied_is_refused_before_a_training_begins(records, settings, said):
    says = r"storage\.stage_to must be a folder that can be written on .*got /proc/nowhere"
    with pytest.raises(MisError, match=says):
        publish(records, replace(settings, stage_to="/proc/nowhere"), said.append)
