"""What changes in a folder is sent, in an order in which half of it is of use, also after the server was away."""

import time

import pytest

from mis.storage.remote import RemoteFolder
from mis.storage.sender import FolderSender


def all_but_kept(name):
    return not name.startswith("kept")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "epoch-0001").mkdir(parents=True)
    return folder


@pytest.fixture
def said():
    return []


def sender_of(folder, remote, said, **options):
    return FolderSender(folder, remote, wanted=all_but_kept, last="history.json", say=said.append, **options)


def test_what_is_there_whole_is_sent_and_what_is_gone_is_deleted(folder, remote, said):
    for name in ("epoch-0001/model", "epoch-0001/history.json", "kept here", ".unfinished.a", "note"):
        (folder / name).write_text(name)
    (folder / ".epoch-0002.unfinished").mkdir()
    (folder / ".epoch-0002.unfinished" / "model").touch()
    remote.write(b"", "of another process")
    sender = sender_of(folder, remote, said)
    sender.send()
    assert set(remote.list()) == {"epoch-0001/model", "epoch-0001/history.json", "note", "of another process"}
    (folder / "note").write_text("changed")
    (folder / "epoch-0001" / "model").unlink()
    sender.send()
    assert set(remote.list()) == {"epoch-0001/history.json", "note", "of another process"}
    assert remote.read("note") == b"changed"
    assert said == []


@pytest.mark.parametrize("owns_folders", [False, True])
def test_what_others_have_put_into_a_folder_is_deleted_only_by_who_owns_it(folder, remote, said, owns_folders):
    (folder / "epoch-0001" / "outcome").touch()
    remote.write(b"", "epoch-0001/of another process")
    sender = sender_of(folder, remote, said, owns_folders=owns_folders)
    sender.send()
    (folder / "epoch-0001" / "outcome").unlink()
    sender.send()
    assert set(remote.list()) == (set() if owns_folders else {"epoch-0001/of another process"})


def test_half_of_what_is_sent_is_of_use(folder, remote, said, monkeypatch):
    for name in ("epoch-0001/history.json", "epoch-0001/z", "a.log", "outcome"):
        (folder / name).write_text("begun")
    sent, put = [], RemoteFolder.put

    def putting(self, path, name, size=None):
        if not sent:
            with (folder / "a.log").open("a") as log:
                log.write(", and more of which the others do not know")
        sent.append(name)
        put(self, path, name, size)

    monkeypatch.setattr(RemoteFolder, "put", putting)
    sender = sender_of(folder, remote, said)
    sender.send()
    assert sorted(sent[:2]) == ["epoch-0001/z", "outcome"]
    assert sent[2:] == ["epoch-0001/history.json", "a.log"]
    assert remote.read("a.log") == b"begun"
    sender.send()
    assert remote.read("a.log").endswith(b"do not know")


def test_while_the_server_is_away_nobody_waits_and_all_arrives_when_it_is_back(
    folder, storage_server, remote, said, monkeypatch
):
    sender = sender_of(folder, remote, said, every_s=0.05)
    sender.start()
    storage_server.down()
    (folder / "note").write_text("1")
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    (folder / "note").write_text("2")
    with monkeypatch.context() as patched:
        patched.setattr(sender, "_send", lambda _: pytest.fail("it is known to be away"))
        patched.setattr(sender, "_look", lambda: pytest.fail("it is known to be away"))
        sender.flush()
    assert "does not answer" in said[0]
    assert "the work goes on" in said[0]
    storage_server.up()
    assert sender.close(60)
    assert remote.read("note") == b"2"
    assert said[1:] == [f"{remote.url} answers again: what has waited is there"]


def test_who_closes_a_sender_while_the_server_is_away_learns_that_not_all_was_sent(
    folder, storage_server, remote, said
):
    sender = sender_of(folder, remote, said)
    sender.start()
    (folder / "note").touch()
    storage_server.down()
    try:
        assert not sender.close(0.1)
    finally:
        storage_server.up()


def test_a_file_that_cannot_be_read_is_said_and_sent_when_it_can(folder, remote, said, monkeypatch):
    (folder / "note").write_text("1")
    sender = sender_of(folder, remote, said)
    with monkeypatch.context() as patched:
        patched.setattr(RemoteFolder, "put", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        sender.flush()
    assert "cannot be read" in said[0]
    assert sender.close(10)
    assert remote.read("note") == b"1"


def test_a_process_that_may_not_send_any_more_changes_nothing(folder, remote, said):
    allowed = [True]
    sender = sender_of(folder, remote, said, may_send=lambda: allowed[0])
    (folder / "note").write_text("1")
    sender.flush()
    allowed.clear()
    allowed.append(False)
    (folder / "note").write_text("2")
    assert not sender.close(0.1)
    assert remote.read("note") == b"1"


def test_while_not_all_is_sent_there_is_a_mark(folder, storage_server, remote, said):
    mark = folder / ".unsent"
    sender = sender_of(folder, remote, said, unsent=mark)
    (folder / "note").touch()
    storage_server.down()
    sender.flush()
    assert mark.exists()
    storage_server.up()
    assert sender.close(60)
    assert not mark.exists()
