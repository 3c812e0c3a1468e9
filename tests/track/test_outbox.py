"""An outbox and its delivery, to a store in memory: what was cut, killed, refused, repeated, or on a full disk."""

import math
import os
import shutil
import threading
from contextlib import contextmanager, suppress

import pytest

from mis.errors import MisError
from mis.files import DiskFullError, LineLog
from mis.settings import load_settings
from mis.track import recording, sender
from mis.track.base import TRAIN, tracked
from mis.track.memory import MemoryTracker
from mis.track.mlflow import MlflowTracker
from mis.track.names import OPENED_TAG
from mis.track.outbox import DELIVERED, LOG, REFUSED, HeldError, Operation, Outbox, claimed, count_waiting, outboxes
from mis.track.process import is_dead, process_tags
from mis.track.recording import OutboxTracker, open_tracker, waiting_line
from mis.track.sender import Delivery, Sender
from mis.track.sync import sync
from tests.power import watched


class AwayError(OSError):
    """The store does not answer."""


class Store(MemoryTracker):
    """A store that can be away, hang, or refuse a metric."""

    def __init__(self):
        super().__init__()
        self.away = False
        self.calls = 0
        self.hangs = threading.Event()  # set while it hangs
        self.goes_on = threading.Event()
        self.asked = threading.Event()

    def _answer(self):
        self.calls += 1
        self.asked.set()
        if self.hangs.is_set():
            self.goes_on.wait()
        if self.away:
            raise AwayError("Connection refused")

    def deliver_run(self, *arguments, **options):
        self._answer()
        run = super().deliver_run(*arguments, **options)
        log_points = run.log_points

        def checked(points):
            self._answer()
            if any(point.name == "bad" for point in points):
                raise ValueError("no metric may be bad")
            log_points(points)

        run.log_points = checked
        return run


class Nobody:
    """Stands for the thread that delivers, where nothing is to be delivered yet."""

    opened = None

    def wake(self):
        """Do nothing."""


def logging_to(folder):
    """Return an outbox below a folder and its tracker; nothing is delivered."""
    outbox = Outbox.create(folder, "store")
    return outbox, OutboxTracker(outbox, Nobody(), "nowhere")


def log_a_study(tracker, folder, *, finish=True):
    """Log a study with two trials, one of which may be left unfinished."""
    file = folder / "model.keras"
    file.write_text("weights")
    study = tracker.open_run("mis/tune", "study", key={"study": "s", "kind": "study"}, params={"seed": 1})
    for number in range(2):
        trial = tracker.open_run("mis/tune", f"trial-{number}", key={"study": "s", "trial": f"{number}"}, parent=study)
        trial.log_dataset("data", "digest", "here")
        for epoch in range(3):
            trial.log_metrics({"dice": 0.1 * epoch, "loss": math.nan}, epoch)
        if number == 0 or finish:
            trial.log_file(file, "model")
            trial.set_tags({"state": "completed"})
            trial.finish()
    if finish:
        study.finish()


def deliver(folder, store):
    with claimed(folder):
        delivery = Delivery(folder)
        while delivery.step(store):
            pass
        delivery.finish(store)


def content(store, *, without=()):
    """Return what a store has of its runs, in the order in which they were started."""
    leave = {"id", "parent", *without}
    return [
        {name: repr(value) for name, value in vars(run).items() if name not in leave and not callable(value)}
        for run in store.runs
    ]


def test_what_is_delivered_is_what_was_logged_and_nothing_is_left(tmp_path):
    outbox, tracker = logging_to(tmp_path / "outbox")
    log_a_study(tracker, tmp_path)
    outbox.close(delivered=False)
    store, direct = Store(), Store()
    deliver(outbox.folder, store)
    log_a_study(direct, tmp_path)
    times = ("started_ms", "ended_ms", "tags")
    assert content(store, without=times) == content(direct, without=times)
    assert [run.parent for run in store.runs] == [None, store.runs[0].id, store.runs[0].id]
    assert list((tmp_path / "outbox").iterdir()) == []


def test_the_times_and_the_process_are_those_of_the_operations(tmp_path, monkeypatch):
    now = iter(range(1_000_000, 2_000_000))
    monkeypatch.setattr("mis.track.outbox.now_ms", lambda: next(now))
    outbox, tracker = logging_to(tmp_path / "outbox")
    with tracked(tracker.open_run("mis/train", "run")) as run:
        run.log_metrics({"dice": 0.5})
    outbox.close(delivered=False)
    monkeypatch.setattr("mis.track.memory.process_tags", lambda: {"mis.pid": "another"})
    deliver(outbox.folder, store := Store())
    (run,) = store.runs
    assert (run.started_ms, run.ended_ms) == (1_000_001, 1_000_003)
    assert process_tags().items() <= run.tags.items()


def test_a_clock_that_is_set_back_ends_no_run_before_it_began(tmp_path, monkeypatch):
    now = iter([5000, 5000, 1000, 1000, 1000, 1000])
    monkeypatch.setattr("mis.track.outbox.now_ms", lambda: next(now))
    outbox, tracker = logging_to(tmp_path / "outbox")
    tracker.open_run("mis/train", "run").finish()
    outbox.close(delivered=False)
    deliver(outbox.folder, store := Store())
    assert (store.runs[0].started_ms, store.runs[0].ended_ms, store.runs[0].status) == (5000, 5000, "FINISHED")


def test_after_a_loss_of_power_all_before_the_cut_is_delivered_once(tmp_path):
    """The log is cut at every byte of its last operations, and delivered after a part of it was delivered before."""
    outbox, tracker = logging_to(tmp_path / "outbox")
    log_a_study(tracker, tmp_path)
    outbox.close(delivered=False)
    log = (outbox.folder / LOG).read_bytes()
    lines = log.splitlines(keepends=True)
    whole = [len(b"".join(lines[:count])) for count in range(len(lines) + 1)]
    expected = {}
    for count in range(len(lines) - 4, len(lines) + 1):
        expected[count] = Store()
        replay(tmp_path / "expected", outbox.folder, log[: whole[count]], expected[count])
    for cut in range(whole[-4], len(log) + 1):
        store = Store()
        # Before, another process has delivered half of it and was killed before it could say so.
        replay(tmp_path / "half", outbox.folder, log[: whole[len(lines) // 2]], store)
        replay(tmp_path / "cut", outbox.folder, log[:cut], store)
        count = sum(end <= cut for end in whole) - 1
        assert content(store) == content(expected[count]), cut


def test_after_a_loss_of_power_all_that_was_logged_before_is_there(tmp_path):
    """Every state of the disk that the writes allow is delivered: a first part of the study, whole, with its files."""
    root = tmp_path / "mlruns"
    root.mkdir()
    with watched(root) as disk:
        outbox, tracker = logging_to(root / "outbox")
        log_a_study(tracker, tmp_path)
        every = dict(disk.states)
        disk.states.clear()
        disk.look()
        certain, disk.states = list(disk.states), every
        outbox.close(delivered=False)
    assert len(every) > 30
    deliver(outbox.folder, whole := Store())
    left = tmp_path / "left"
    for state, _ in zip(every, disk.restore(left), strict=True):
        found = outboxes(left / "outbox") if (left / "outbox").is_dir() else []
        for folder in found:
            operations = map(Operation.from_line, LineLog(folder / LOG).read())
            files = [operation.content["path"] for operation in operations if operation.kind == "file"]
            assert all((folder / path).exists() for path in files), (
                "what is to be delivered is there with its operation"
            )
        if state in certain:
            (folder,) = found
            deliver(folder, store := Store())
            assert content(store) == content(whole)


def replay(folder, outbox, log, store):
    """Deliver a copy of an outbox whose log is another one."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(outbox, folder)
    (folder / LOG).write_bytes(log)
    deliver(folder, store)


def test_delivered_again_from_a_mark_that_lags_behind_changes_nothing(tmp_path):
    outbox, tracker = logging_to(tmp_path / "outbox")
    log_a_study(tracker, tmp_path)
    outbox.close(delivered=False)
    shutil.copytree(outbox.folder, tmp_path / "copy")
    store = Store()
    deliver(outbox.folder, store)
    once = content(store)
    for mark in range(0, 20, 3):
        shutil.copytree(tmp_path / "copy", tmp_path / f"copy-{mark}")
        (tmp_path / f"copy-{mark}" / DELIVERED).write_text(str(mark))
        deliver(tmp_path / f"copy-{mark}", store)
        assert content(store) == once


def test_what_a_dead_process_has_not_finished_ends_as_killed_when_it_last_logged(tmp_path, monkeypatch):
    now = iter(range(1000, 2000))
    monkeypatch.setattr("mis.track.outbox.now_ms", lambda: next(now))
    outbox, tracker = logging_to(tmp_path / "outbox")
    log_a_study(tracker, tmp_path, finish=False)
    last_ms = Operation.from_line(outbox.log.read()[-1]).at_ms
    outbox.close(delivered=False)
    deliver(outbox.folder, store := Store())
    assert [run.status for run in store.runs] == ["KILLED", "FINISHED", "KILLED"]
    assert store.runs[0].ended_ms == store.runs[2].ended_ms == last_ms


def test_epochs_that_wait_go_together(tmp_path):
    outbox, tracker = logging_to(tmp_path / "outbox")
    runs = [tracker.open_run("mis/tune", f"trial-{number}") for number in range(3)]
    for epoch in range(50):
        for run in runs:
            run.log_metrics({"dice": epoch}, epoch)
    for run in runs:
        run.finish()
    outbox.close(delivered=False)
    deliver(outbox.folder, store := Store())
    assert store.calls == 3 + 3
    assert [run.metrics["dice"] for run in store.runs] == [[(epoch, epoch) for epoch in range(50)]] * 3


def test_what_the_store_refuses_is_kept_beside_and_blocks_nothing(tmp_path):
    outbox, tracker = logging_to(tmp_path / "outbox")
    with tracked(tracker.open_run("mis/train", "run")) as run:
        for epoch, name in enumerate(["dice", "dice", "bad", "dice"]):
            run.log_metrics({name: epoch}, epoch)
    outbox.close(delivered=False)
    said, store = [], Store()
    with claimed(outbox.folder):
        delivery = Delivery(outbox.folder, say=said.append)
        while delivery.step(store):
            pass
        delivery.finish(store)
    (run,) = store.runs
    assert (run.metrics["dice"], run.status) == ([(0, 0), (1, 1), (3, 3)], "FINISHED")
    (line,) = said
    assert "no metric may be bad" in line
    assert "bad" in (outbox.folder / REFUSED).read_text()
    assert outboxes(tmp_path / "outbox") == [], "nothing waits any more"


def test_an_outbox_whose_process_lives_is_left_alone(tmp_path):
    outbox, _ = logging_to(tmp_path / "outbox")
    with pytest.raises(HeldError), claimed(outbox.folder):
        pass
    outbox.close(delivered=True)
    assert not outbox.folder.exists()


# ---- The thread that delivers ----


@contextmanager
def sending(folder, store, *, patience_s=0.0, connect=None, said=None):
    """Yield a tracker whose outbox is being delivered, and what was said; then wait for it as a command does."""
    said, outbox = [] if said is None else said, Outbox.create(folder, "store")
    thread = Sender(outbox, connect or (lambda: store), None if connect else store, said.append)
    thread.start()
    tracker = OutboxTracker(outbox, thread, "nowhere")
    tracker.said, tracker.thread = said, thread
    try:
        yield tracker
    finally:
        tracker.delivered = thread.close(patience_s)
        outbox.close(delivered=tracker.delivered)


def test_a_report_returns_while_the_store_hangs(tmp_path):
    """The store goes on only after the reports have returned: otherwise this would wait for ever."""
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        store.hangs.set()
        run = tracker.open_run("mis/train", "run")
        assert store.asked.wait(60)
        for epoch in range(5):
            run.log_metrics({"dice": epoch}, epoch)
        run.finish()
        assert store.runs == []
        store.hangs.clear()
        store.goes_on.set()
    assert tracker.delivered
    assert (store.runs[0].status, len(store.runs[0].metrics["dice"]), run.id) == ("FINISHED", 5, store.runs[0].id)
    assert list((tmp_path / "outbox").iterdir()) == []


def test_a_store_that_is_away_gets_all_when_it_is_back_and_each_is_said_once(tmp_path):
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        store.away = True
        run = tracker.open_run("mis/train", "run")
        while store.calls < 3:  # it is tried again
            store.asked.wait()
        store.away = False
        run.finish()
    away, back = tracker.said
    assert "does not answer (Connection refused)" in away
    assert "answers again" in back
    assert [run.status for run in store.runs] == ["FINISHED"]


def test_a_store_that_is_opened_late_gets_all(tmp_path):
    store, absent = Store(), iter([MisError("no server"), MisError("no server")])

    def connect():
        for error in absent:
            raise error
        return store

    with sending(tmp_path / "outbox", store, connect=connect, patience_s=60) as tracker:
        tracker.open_run("mis/train", "run").finish()
    assert [run.status for run in store.runs] == ["FINISHED"]


def test_what_a_store_never_takes_waits_and_the_next_command_delivers_it_first(tmp_path):
    away, store = Store(), Store()
    away.away = True
    with sending(tmp_path / "outbox", away) as tracker:
        first = tracker.open_run("mis/train", "run", key={"key": "a"})
        first.log_metrics({"dice": 0.1}, 1)
    assert not tracker.delivered
    assert first.id is None
    assert count_waiting(outboxes(tmp_path / "outbox")[0]) == (2, 1)
    assert waiting_line(tmp_path / "outbox").startswith("2 operations of 1 run wait in ")
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        second = tracker.open_run("mis/train", "run", key={"key": "a"})
        second.log_metrics({"dice": 0.2}, 2)
        second.finish()
    (run,) = store.runs
    assert (run.metrics["dice"], run.status) == ([(1, 0.1), (2, 0.2)], "FINISHED")
    assert list((tmp_path / "outbox").iterdir()) == []


class Lines(list):
    """What was said to the user; `event` is set when a line has a part."""

    def __init__(self, part):
        super().__init__()
        self.part, self.event = part, threading.Event()

    def append(self, line):
        super().append(line)
        if self.part in line:
            self.event.set()


def test_a_wait_that_takes_long_is_shown(tmp_path, monkeypatch):
    """The store goes on once it is shown."""
    monkeypatch.setattr(sender, "QUIET_S", 0.0)
    slow, lines = Store(), Lines("2 operations on the way to MLflow")
    deliver_run = slow.deliver_run

    def when_shown(*arguments, **options):
        assert lines.event.wait(60)
        return deliver_run(*arguments, **options)

    slow.deliver_run = when_shown
    with sending(tmp_path / "outbox", slow, patience_s=60, said=lines) as tracker:
        tracker.open_run("mis/train", "run").finish()
    assert tracker.delivered


def test_a_wait_for_a_store_that_is_away_is_shown_with_the_reason(tmp_path, monkeypatch):
    """The store answers once it is shown."""
    monkeypatch.setattr(sender, "QUIET_S", 0.0)
    lines = Lines("2 operations wait for MLflow, which does not answer (Connection refused)")

    class Away(Store):
        away = property(lambda _: not lines.event.is_set(), lambda _, __: None)

    with sending(tmp_path / "outbox", Away(), patience_s=60, said=lines) as tracker:
        tracker.open_run("mis/train", "run").finish()
    assert tracker.delivered


def test_what_waits_for_another_store_is_not_delivered_to_this_one(tmp_path):
    other = Outbox.create(tmp_path / "outbox", "http://another")
    OutboxTracker(other, Nobody(), "nowhere").open_run("mis/train", "theirs").finish()
    other.close(delivered=False)
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        tracker.open_run("mis/train", "ours").finish()
    assert [run.name for run in store.runs] == ["ours"]
    assert outboxes(tmp_path / "outbox") == [other.folder]


def test_what_cannot_be_read_is_left_and_said_and_holds_nothing_up(tmp_path):
    damaged, _ = logging_to(tmp_path / "outbox")
    damaged.close(delivered=False)
    with (damaged.folder / LOG).open("a") as log:
        log.write("no operation\n")
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        tracker.open_run("mis/train", "ours").finish()
    assert [run.name for run in store.runs] == ["ours"]
    (line,) = tracker.said
    assert "an outbox must have a log that can be read" in line
    assert outboxes(tmp_path / "outbox") == [damaged.folder]
    assert waiting_line(tmp_path / "outbox").startswith("0 operations")


def test_sync_leaves_what_cannot_be_read_and_delivers_the_rest(settings, monkeypatch):
    damaged, _ = logging_to(settings.outboxes)
    (whole, tracker), store, lines = logging_to(settings.outboxes), Store(), []
    tracker.open_run("mis/train", "run").finish()
    for outbox in (damaged, whole):
        outbox.close(delivered=False)
    with (damaged.folder / LOG).open("a") as log:
        log.write("5\n")
    monkeypatch.setattr("mis.track.sync.connect", lambda _: store)
    assert sync(settings, settings.root, lines.append) == 1
    assert [run.name for run in store.runs] == ["run"]
    assert outboxes(settings.outboxes) == [damaged.folder]
    assert "an outbox must have a log that can be read" in lines[0]


def test_who_has_logged_nothing_does_not_wait_for_a_store_that_is_away(tmp_path):
    """The patience is that of days: who waited would wait for ever."""

    def connect():
        raise MisError("no server")

    with sending(tmp_path / "outbox", Store(), connect=connect, patience_s=1e6) as tracker:
        pass
    assert tracker.delivered


def test_memory_and_disk_stay_flat_with_many_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "SHORTEN_BYTES", 4000)
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        study = tracker.open_run("mis/tune", "study", key={"study": "s"})
        for number in range(200):
            with tracked(tracker.open_run("mis/tune", f"trial-{number}", parent=study)) as run:
                for epoch in range(3):
                    run.log_metrics({"dice": epoch}, epoch)
        del run
        wait_until_idle(tracker)
        own = tracker.thread._own
        assert (len(own._open), len(own._runs), len(own._last_ms), len(own._waiting)) == (1, 1, 1, 0)
        assert len(tracker._runs) == 1
        (log,) = (tmp_path / "outbox").glob(f"*/{LOG}")
        assert log.stat().st_size < 8000
        study.log_metrics({"trials": 200})
        study.finish()
    assert {run.parent for run in store.runs[1:]} == {store.runs[0].id}
    assert [len(run.metrics["dice"]) for run in store.runs[1:]] == [3] * 200
    assert (store.runs[0].metrics, store.runs[0].status) == ({"trials": [(0, 200)]}, "FINISHED")


def wait_until_idle(tracker):
    with tracker.thread._changed:
        while not tracker.thread._idle:
            tracker.thread._changed.wait(0.01)


def test_after_it_was_shortened_a_log_still_tells_of_the_runs_that_are_open(tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "SHORTEN_BYTES", 0)
    store = Store()
    with sending(tmp_path / "outbox", store) as tracker:
        study = tracker.open_run("mis/tune", "study", key={"study": "s"})
        with tracked(tracker.open_run("mis/tune", "trial")):
            pass
        wait_until_idle(tracker)
        store.away = True
        study.log_metrics({"trials": 1})
    store.away = False
    deliver(outboxes(tmp_path / "outbox")[0], store)
    assert [(run.name, run.status) for run in store.runs] == [("study", "KILLED"), ("trial", "FINISHED")]
    assert store.runs[0].metrics == {"trials": [(0, 1.0)]}


def test_after_it_was_shortened_a_log_still_tells_when_something_was_last_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "SHORTEN_BYTES", 0)
    now = iter(range(1000, 2000))
    monkeypatch.setattr("mis.track.outbox.now_ms", lambda: next(now))
    store = Store()
    with sending(tmp_path / "outbox", store) as tracker:
        study = tracker.open_run("mis/tune", "study", key={"study": "s"})
        for epoch in range(5):
            study.log_metrics({"trials": epoch}, epoch)
            wait_until_idle(tracker)
        shutil.copytree(outboxes(tmp_path / "outbox")[0], tmp_path / "copy")
    deliver(tmp_path / "copy", store)
    assert (store.runs[0].status, store.runs[0].started_ms, store.runs[0].ended_ms) == ("KILLED", 1001, 1006)


def test_what_killed_processes_have_left_half_made_is_removed(tmp_path):
    for name in ("20260101-half-made", ".20260101-old", ".20260101-gone.removed"):
        (tmp_path / "outbox" / name / "files").mkdir(parents=True)
    os.utime(tmp_path / "outbox" / ".20260101-old", (0, 0))
    (tmp_path / "outbox" / ".20260101-being-made").mkdir()
    with sending(tmp_path / "outbox", Store(), patience_s=60) as tracker:
        tracker.open_run("mis/train", "run").finish()
    assert [path.name for path in (tmp_path / "outbox").iterdir()] == [".20260101-being-made"]


def fill(path):
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def log_epochs(run):
    for epoch in range(1000):
        run.log_metrics({"dice": epoch}, epoch)


def test_a_full_disk_is_one_line_and_what_was_logged_before_stays(full_disk):
    outbox, tracker = logging_to(full_disk)
    run = tracker.open_run("mis/train", "run")
    fill(full_disk / "filler")
    with pytest.raises(DiskFullError, match="there must be space on the disk"):
        log_epochs(run)
    (full_disk / "filler").unlink()
    before = outbox.count
    run.finish()
    assert len(outbox.log.read()) == before + 1


# ---- Commands ----


@pytest.fixture
def settings(tmp_path):
    return load_settings({"MIS_ROOT": str(tmp_path / "root"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})


@pytest.fixture
def offline(tmp_path):
    env = {"MIS_ROOT": str(tmp_path / "root"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MIS_OFFLINE": "1"}
    return load_settings(env)


def test_without_a_server_a_command_is_refused_before_it_begins(settings):
    with pytest.raises(MisError, match="must name a server that answers"), open_tracker(settings):
        pytest.fail("it has begun")
    assert not settings.outboxes.exists()


def test_offline_everything_is_kept_and_said_and_delivered_twice_it_is_the_same(offline, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "SHORT_PATIENCE_S", 0.1)
    said = []
    with open_tracker(offline, said.append) as tracker:
        log_a_study(tracker, tmp_path)
    assert "wait in" in said[-1]
    assert "`python -m mis.track sync` sends them" in said[-1]
    shutil.copytree(offline.outboxes, tmp_path / "copied")
    store, lines = Store(), []
    monkeypatch.setattr("mis.track.sync.connect", lambda _: store)
    assert sync(offline, None, lines.append) == 0
    once = content(store)
    assert [run.status for run in store.runs] == ["FINISHED"] * 3
    assert list(offline.outboxes.iterdir()) == []
    assert sync(offline, tmp_path / "copied", lines.append) == 0
    assert content(store) == once
    assert sync(offline, None, lines.append) == 0
    assert lines[-1] == f"nothing waits in {offline.outboxes}"


def test_sync_says_what_still_waits(settings, tmp_path, monkeypatch):
    lines = []
    outbox = Outbox.create(settings.outboxes, "http://another:5000")
    OutboxTracker(outbox, Nobody(), "nowhere").open_run("mis/train", "run").finish()
    assert sync(settings, None, lines.append) == 1, "there is no server"
    assert "does not answer" in lines[0]
    store = Store()
    monkeypatch.setattr("mis.track.sync.connect", lambda _: store)
    assert sync(settings, None, lines.append) == 1
    assert "left to its process, which lives" in lines[-1]
    outbox.close(delivered=False)
    assert sync(settings, None, lines.append) == 1
    assert "waits for http://another:5000" in lines[-1]
    assert sync(settings, outbox.folder, lines.append) == 0
    assert [run.name for run in store.runs] == ["run"]
    with pytest.raises(MisError, match="sync takes an outbox"):
        sync(settings, tmp_path / "none", lines.append)


def test_ctrl_c_is_delivered_too(tmp_path):
    settings = load_settings({"MIS_ROOT": str(tmp_path)})
    with pytest.raises(KeyboardInterrupt), open_tracker(settings) as tracker, tracked(tracker.open_run(TRAIN, "run")):
        raise KeyboardInterrupt
    store = MlflowTracker(settings)
    assert [run.info.status for run in store._search(TRAIN, [])] == ["KILLED"]
    assert list(settings.outboxes.iterdir()) == []


# ---- The process ----


def test_a_clock_that_is_set_makes_no_live_process_dead(monkeypatch):
    tags = process_tags()
    monkeypatch.setattr("psutil.Process.create_time", lambda _: 1e9)
    assert not is_dead(tags)
    old = {name: text for name, text in tags.items() if name not in ("mis.boot", "mis.started_ticks")}
    assert is_dead(old), "tags of earlier versions have the time of the day alone"


@pytest.mark.parametrize("tags", [{"mis.boot": "another"}, {"mis.started_ticks": "1"}, {"mis.pid": "4194305"}])
def test_a_process_of_another_start_is_dead(tags):
    assert not is_dead(process_tags())
    assert is_dead(process_tags() | tags)


def test_an_open_run_has_when_it_was_opened(tmp_path):
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        tracker.open_run("mis/train", "run").finish()
    assert int(store.runs[0].tags[OPENED_TAG]) == store.runs[0].started_ms
    assert store.runs[0].tags["mis.pid"] == str(os.getpid())
