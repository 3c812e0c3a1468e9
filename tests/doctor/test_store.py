import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from mis.doctor.store import SLOW_S, Store, count_in_outboxes, find_store, judge_store
from mis.errors import MisError
from mis.machine.disks import Disk
from mis.settings import load_settings
from mis.track.base import TRAIN
from mis.track.mlflow import MlflowTracker
from mis.track.outbox import Outbox
from tests.track.conftest import server_uri  # noqa: F401 - a fixture

FILE = Store(where="MLflow store /x/mlflow.db", is_file=True, answer_s=0.01, version="3.17.2", own_version="3.17.2")
SERVER = replace(FILE, where="MLflow server http://host:5000", is_file=False)
NFS = Disk("/x", "nfs4", frozenset({"rw"}), 2**40, 2**40)

# ---- What the facts mean ----


@pytest.mark.parametrize(
    "store",
    [
        FILE,
        SERVER,
        replace(SERVER, version="3.9.0"),
        replace(SERVER, version="unknown"),
        replace(FILE, exists=False, answer_s=None),
        replace(SERVER, answer_s=None, is_offline=True),
        replace(FILE, disk=replace(NFS, kind="ext4")),
    ],
)
def test_there_is_no_alarm_on_healthy_facts(store):
    found = judge_store(store)
    assert [(line.mark, line.about) for line in found] == [("ok", "MLflow"), ("ok", "outbox")]
    assert not any(line.do for line in found)


TROUBLES = {
    "no answer": (replace(SERVER, answer_s=None, refusal="Connection refused"), "error", "refused", "MIS_OFFLINE=1"),
    "read-only": (replace(SERVER, write_refusal="Permission denied"), "error", "takes nothing", "writable"),
    "a full disk": (replace(FILE, disk=replace(NFS, kind="xfs", refusal="No space")), "error", "No space", "space"),
    "another version": (
        replace(SERVER, version="2.22.0"),
        "warning",
        "MLflow 2.22.0, and this process 3.17.2",
        "major",
    ),
    "slow": (replace(SERVER, answer_s=2 * SLOW_S), "warning", "4000 ms", "nearer"),
    "SQLite on NFS": (replace(FILE, disk=NFS), "warning", "nfs4", "mlflow server"),
    "left behind": (replace(FILE, waiting=3), "warning", "3 operations of processes that have ended wait", "sync"),
    "refused": (replace(FILE, refused=1), "warning", "1 operation that MLflow has refused", "--refused"),
}


@pytest.mark.parametrize(("store", "mark", "found", "do"), TROUBLES.values(), ids=TROUBLES)
def test_each_trouble_is_the_only_one_and_says_what_to_do(store, mark, found, do):
    (trouble,) = [line for line in judge_store(store) if line.mark != "ok"]
    assert trouble.mark == mark
    assert found in trouble.found
    assert do in trouble.do


# ---- What is found ----


@pytest.fixture
def settings(tmp_path):
    return load_settings({"MIS_ROOT": str(tmp_path)}, tmp_path)


def test_a_store_that_is_not_there_yet_is_not_made(settings, tmp_path):
    store = find_store(settings)
    assert (store.exists, store.answer_s) == (False, None)
    assert list(tmp_path.iterdir()) == []


def content(path):
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_a_file_answers_is_written_and_is_as_it_was(settings):
    MlflowTracker(settings).start_run(TRAIN, "training")
    database = settings.mlruns / "mlflow.db"
    before = content(database)
    store = find_store(settings)
    assert store.answer_s is not None
    assert (store.refusal, store.write_refusal) == ("", "")
    assert content(database) == before, "no run of a dead process is ended either"
    assert [line.mark for line in judge_store(store)] == ["ok", "ok"]


def test_a_file_that_is_no_database_does_not_answer(settings):
    settings.mlruns.mkdir()
    (settings.mlruns / "mlflow.db").write_text("no database, " * 100)
    store = find_store(settings)
    assert "not a database" in store.refusal


def test_a_file_that_another_process_writes_for_long_takes_nothing(settings, monkeypatch):
    monkeypatch.setattr("mis.doctor.store.BUSY_S", 0.1)
    MlflowTracker(settings)
    with closing(sqlite3.connect(settings.mlruns / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert find_store(settings).write_refusal == "database is locked"


@pytest.mark.slow
def test_a_server_answers_says_its_version_takes_what_is_logged_and_is_as_it_was(settings, server_uri):  # noqa: F811
    client = MlflowTracker(replace(settings, tracking_uri=server_uri)).client
    store = find_store(replace(settings, tracking_uri=server_uri))
    assert (store.is_file, store.refusal, store.write_refusal) == (False, "", "")
    assert store.version == store.own_version
    assert store.answer_s is not None
    assert client.search_registered_models() == []
    assert [line.mark for line in judge_store(store)] == ["ok", "ok"]


def test_a_server_that_is_not_there_does_not_answer_and_is_named_without_a_password(settings):
    store = find_store(replace(settings, tracking_uri="http://me:secret@127.0.0.1:9"))
    assert "refused" in store.refusal
    line, _ = judge_store(store)
    assert "secret" not in line.found + line.do
    assert "http://127.0.0.1:9" in line.found


def test_a_server_that_only_lets_read_takes_nothing(settings):
    class ReadOnly(BaseHTTPRequestHandler):
        def answer(self, code, text):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self):
            self.answer(200, b"2.9.1" if self.path == "/version" else b"{}")

        def do_POST(self):
            is_read = self.path.endswith("experiments/search")
            self.answer(200 if is_read else 403, b"{}" if is_read else b"Permission denied")

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), ReadOnly) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        store = find_store(replace(settings, tracking_uri=f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert store.answer_s is not None
    assert "403" in store.write_refusal
    assert store.version == "2.9.1"
    assert judge_store(store)[0].mark == "error"


def test_a_uri_of_an_unknown_kind_is_refused(settings):
    with pytest.raises(MisError, match="MLFLOW_TRACKING_URI must begin with"):
        find_store(replace(settings, tracking_uri="postgresql://host/db"))


def test_only_what_dead_processes_have_left_is_counted(settings):
    assert count_in_outboxes(settings.outboxes) == (0, 0)
    outbox = Outbox.create(settings.outboxes, "sqlite:///mlruns/mlflow.db")
    outbox.append("open", 0, experiment=TRAIN, name="training", key={}, params={}, tags={}, parent=None)
    outbox.append("metrics", 1, values={"loss": 1.0}, step=0)
    assert count_in_outboxes(settings.outboxes) == (0, 0), "its process lives and delivers it"
    outbox.close(delivered=False)
    before = sorted(os.listdir(outbox.folder))  # noqa: PTH208 - names alone
    assert count_in_outboxes(settings.outboxes) == (2, 0)
    assert sorted(os.listdir(outbox.folder)) == before  # noqa: PTH208
