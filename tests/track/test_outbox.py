"""An outbox and its delivery, to a store in memory: what was cut, killed, refused, repeated, or on a full disk."""

import math
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from mis.errors import MisError
from mis.files import DiskFullError, LineLog
from mis.settings import load_settings
from mis.track import outbox as outbox_module
from mis.track import recording, sender
from mis.track.base import TRAIN, tracked
from mis.track.memory import MemoryTracker
from mis.track.mlflow import MlflowTracker
from mis.track.names import OPENED_TAG
from mis.track.outbox import (
    DELIVERED,
    LOG,
    REFUSED,
    DamagedError,
    HeldError,
    Operation,
    Outbox,
    claimed,
    count_waiting,
    outboxes,
    put_back_refused,
    read_refused,
)
from mis.track.process import is_dead, process_tags
from mis.track.recording import OutboxTracker, delivered_id, open_tracker, waiting_line, where
from mis.track.sender import Delivery, Sender
from mis.track.sync import sync
from tests.power import watched


class AwayError(OSError):
    """The store does not answer."""


class DoubtfulError(Exception):
    """The store does not take something, for ever or for now."""


class Store(MemoryTracker):
    """A store that can be away, hang, or refuse a metric or a run.

    Attributes:
        refused_runs: The names of runs that it refuses.
        doubtful: Takes what is given to it (a run's name, a metric's, or `values` for parameters and tags), and returns
            whether it does not take that now.
    """

    def __init__(self):
        super().__init__()
        self.away = False
        self.calls = 0
        self.hangs = threading.Event()  # set while it hangs
        self.goes_on = threading.Event()
        self.asked = threading.Event()
        self.refused_runs = set()
        self.doubtful = lambda name: False  # noqa: ARG005

    def may_refuse(self, error):
        return isinstance(error, DoubtfulError)

    def _check(self, name):
        if self.doubtful(name):
            raise DoubtfulError("BAD_REQUEST: no connection in time")

    def _answer(self):
        self.calls += 1
        self.asked.set()
        if self.hangs.is_set():
            self.goes_on.wait()
        if self.away:
            raise AwayError("Connection refused")

    def deliver_run(self, *arguments, **options):
        self._answer()
        self._check(arguments[1])
        if arguments[1] in self.refused_runs:
            raise ValueError("no such run may be")
        run = super().deliver_run(*arguments, **options)
        log_points = run.log_points

        def checked(points):
            self._answer()
            for point in points:
                self._check(point.name)
            if any(point.name == "bad" for point in points):
                raise ValueError("no metric may be bad")
            log_points(points)

        def checks(write):
            def checked(values):
                self._check("values")
                write(values)

            return checked

        run.log_points = checked
        run.set_tags, run.log_params = checks(run.set_tags), checks(run.log_params)
        return run


class Nobody:
    """Stands for the thread that delivers, where nothing is to be delivered yet."""

    opened = None

    def wake(self):
        """Do nothing."""


DAMAGES = [b"no operation\n", b"5\n", b"\xff\xfe\x80 no text\n"]
"""What no version has written into a log."""


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


def log_two_runs(folder):
    """Log two runs in turns, of which one has the metric `doubtful`, and return the outbox."""
    outbox, tracker = logging_to(folder)
    first, second = (tracker.open_run("mis/tune", name) for name in ("first", "second"))
    first.set_tags({"state": "running"})
    first.log_metrics({"doubtful": 0}, 0)
    for epoch in range(10):
        first.log_metrics({"dice": epoch}, epoch)
        second.log_metrics({"dice": epoch}, epoch)
        first.set_tags({"state": f"epoch {epoch}"})
        second.log_params({f"p{epoch}": epoch})
    for run in (first, second):
        run.finish()
    outbox.close(delivered=False)
    return outbox


def step_until(delivery, store, done):
    """Take steps, which may fail, until all is delivered or something holds; return how many have failed."""
    failures = 0
    while not done():
        try:
            if not delivery.step(store):
                return failures
        except DoubtfulError:
            failures += 1
    return failures


def test_what_may_be_refused_is_refused_after_the_store_has_taken_others_some_times(tmp_path):
    outbox, store, said = log_two_runs(tmp_path / "outbox"), Store(), []
    store.doubtful = lambda name: name == "doubtful"
    with claimed(outbox.folder):
        delivery = Delivery(outbox.folder, say=said.append)
        failures = step_until(delivery, store, lambda: False)
        delivery.finish(store)
    assert failures >= sender.DOUBTS
    assert [refusal.operation.content["values"] for refusal in read_refused(outbox.folder)] == [{"doubtful": 0.0}]
    assert len(said) == 1
    for run in store.runs:
        assert (run.status, len(run.metrics["dice"])) == ("FINISHED", 10)
    assert store.runs[0].tags["state"] == "epoch 9"
    assert store.runs[1].params["p9"] == "9"


@pytest.mark.parametrize("delivered", [0, 3])
def test_what_may_be_refused_is_tried_again_so_long_as_the_store_takes_nothing_else(tmp_path, delivered):
    outbox, store = log_two_runs(tmp_path / "outbox"), Store()
    with claimed(outbox.folder):
        delivery = Delivery(outbox.folder, say=pytest.fail)
        assert sum(delivery.step(store) for _ in range(delivered)) == delivered
        store.doubtful = lambda asked: True  # noqa: ARG005
        for _ in range(50):
            with pytest.raises(DoubtfulError):
                delivery.step(store)
        assert not (outbox.folder / REFUSED).exists()
        store.doubtful = lambda asked: False  # noqa: ARG005
        assert step_until(delivery, store, lambda: False) == 0
        delivery.finish(store)
    assert {(run.status, len(run.metrics["dice"])) for run in store.runs} == {("FINISHED", 10)}
    assert not outbox.folder.exists()


def test_a_run_that_may_be_refused_holds_up_its_own_operations_and_those_below_it_alone(tmp_path):
    outbox, tracker = logging_to(tmp_path / "outbox")
    study = tracker.open_run("mis/tune", "study")
    trial = tracker.open_run("mis/tune", "trial", parent=study)
    other = tracker.open_run("mis/tune", "other")
    for run in (study, trial, other):
        run.log_metrics({"dice": 1.0}, 1)
        run.set_tags({"state": "done"})
    other.log_params({"rate": 1})
    outbox.close(delivered=False)
    store = Store()
    store.doubtful = lambda name: name == "study"
    with claimed(outbox.folder):
        delivery = Delivery(outbox.folder)
        step_until(delivery, store, lambda: store.runs and store.runs[0].params)
        assert [run.name for run in store.runs] == ["other"]
        store.doubtful = lambda name: False  # noqa: ARG005
        step_until(delivery, store, lambda: False)
        delivery.finish(store)
    assert {run.name: (run.metrics, run.tags["state"]) for run in store.runs} == dict.fromkeys(
        ("other", "study", "trial"), ({"dice": [(1, 1.0)]}, "done")
    )
    by_name = {run.name: run for run in store.runs}
    assert by_name["trial"].parent == by_name["study"].id


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


def test_all_of_fifty_reports_and_so_their_median_return_before_the_store_answers(tmp_path):
    """The store answers only once the thread that reports has ended: one report that waits would end nothing."""
    store, returned = Store(), []
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        store.hangs.set()
        run = tracker.open_run("mis/train", "run")
        assert store.asked.wait(60)

        def report():
            for epoch in range(50):
                run.log_metrics({"dice": epoch}, epoch)
                returned.append((epoch, store.goes_on.is_set()))

        reporting = threading.Thread(target=report, daemon=True)
        reporting.start()
        reporting.join(60)
        store.hangs.clear()
        store.goes_on.set()
        assert returned == [(epoch, False) for epoch in range(50)]
        run.finish()
    assert store.runs[0].metrics["dice"] == [(epoch, epoch) for epoch in range(50)]


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


def test_what_waits_for_another_store_is_not_delivered_to_this_one_which_is_said_once(tmp_path):
    others = [Outbox.create(tmp_path / "outbox", "http://another") for _ in range(3)]
    for other in others:
        OutboxTracker(other, Nobody(), "nowhere").open_run("mis/train", "theirs").finish()
        other.close(delivered=False)
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        tracker.open_run("mis/train", "ours").finish()
    assert [run.name for run in store.runs] == ["ours"]
    assert outboxes(tmp_path / "outbox") == [other.folder for other in others]
    (line,) = tracker.said
    assert line == (
        f"{others[0].folder} waits for http://another, and is left there: name that in MLFLOW_TRACKING_URI, or "
        f"`python -m mis.track sync {others[0].folder}` delivers it to store; 2 others beside it likewise"
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_left_and_said_and_holds_nothing_up(tmp_path, damage):
    damaged, _ = logging_to(tmp_path / "outbox")
    damaged.close(delivered=False)
    with (damaged.folder / LOG).open("ab") as log:
        log.write(damage)
    store = Store()
    with sending(tmp_path / "outbox", store, patience_s=60) as tracker:
        tracker.open_run("mis/train", "ours").finish()
    assert [run.name for run in store.runs] == ["ours"]
    (line,) = tracker.said
    assert "an outbox must have a log that can be read" in line
    assert outboxes(tmp_path / "outbox") == [damaged.folder]
    assert waiting_line(tmp_path / "outbox").startswith("0 operations")


@pytest.mark.parametrize("damage", DAMAGES)
def test_sync_leaves_what_cannot_be_read_and_delivers_the_rest(settings, monkeypatch, damage):
    damaged, _ = logging_to(settings.outboxes)
    (whole, tracker), store, lines = logging_to(settings.outboxes), Store(), []
    tracker.open_run("mis/train", "run").finish()
    for outbox in (damaged, whole):
        outbox.close(delivered=False)
    with (damaged.folder / LOG).open("ab") as log:
        log.write(damage)
    monkeypatch.setattr("mis.track.sync.connect", lambda _: store)
    assert sync(settings, settings.root, lines.append) == 1
    assert [run.name for run in store.runs] == ["run"]
    assert outboxes(settings.outboxes) == [damaged.folder]
    assert "an outbox must have a log that can be read" in lines[0]


def test_what_cannot_be_read_is_not_passed_over_the_next_time(tmp_path):
    """Otherwise what was not delivered would count as delivered, and be removed."""
    outbox, tracker = logging_to(tmp_path / "outbox")
    delivery = Delivery(outbox.folder, outbox.log)
    tracker.open_run("mis/train", "run")
    log = outbox.log.path.read_bytes()
    outbox.log.path.write_bytes(log.replace(b'"run"', b'"r\xffn"'))
    for _ in range(3):
        with pytest.raises(DamagedError):
            delivery.step(Store())
    outbox.log.path.write_bytes(log)
    assert delivery.step(store := Store()) == 1
    assert [run.name for run in store.runs] == ["run"]
    outbox.close(delivered=True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_earlier_outbox_that_cannot_be_read_lets_a_command_without_a_server_end_well(offline, monkeypatch, damage):
    monkeypatch.setattr(recording, "SHORT_PATIENCE_S", 0.0)
    damaged, _ = logging_to(offline.outboxes)
    damaged.close(delivered=False)
    with (damaged.folder / LOG).open("ab") as log:
        log.write(damage)
    said = []
    with open_tracker(offline, said.append) as tracker:
        tracker.open_run("mis/train", "run").finish()
    assert said[-1].startswith("2 operations of 1 run wait in")


def test_what_the_store_does_not_take_of_another_process_is_said_once_and_delivered_later(tmp_path, monkeypatch):
    monkeypatch.setattr(sender, "LONGEST_LEFT_PAUSE_S", 0.0)  # it is tried again after each report
    monkeypatch.setattr(sender, "FIRST_PAUSE_S", 0.0)
    left, others = logging_to(tmp_path / "outbox")
    others.open_run("mis/train", "left").finish()
    left.close(delivered=False)
    store, lines, tries = Store(), Lines("has taken what waited"), []

    def fails(name):
        tries.extend([name] if name == "left" else [])
        return name == "left" and len(tries) < 9

    store.doubtful = fails
    with sending(tmp_path / "outbox", store, patience_s=60, said=lines) as tracker:
        run = tracker.open_run("mis/train", "ours")
        for epoch in range(6):
            run.log_metrics({"dice": epoch}, epoch)
        assert lines.event.wait(60)
        run.finish()
    not_taken, taken = tracker.said
    assert not_taken.startswith(f"MLflow does not take what waits in {left.folder} (BAD_REQUEST: ")
    assert taken == f"MLflow has taken what waited in {left.folder}"
    assert sorted((run.name, run.status) for run in store.runs) == [("left", "FINISHED"), ("ours", "FINISHED")]
    assert list((tmp_path / "outbox").iterdir()) == []


def test_what_the_store_never_takes_of_another_process_keeps_no_command_waiting(tmp_path):
    """The patience is that of days."""
    left, others = logging_to(tmp_path / "outbox")
    others.open_run("mis/train", "left").finish()
    left.close(delivered=False)
    store = Store()
    store.doubtful = lambda name: name == "left"
    with sending(tmp_path / "outbox", store, patience_s=1e6) as tracker:
        tracker.open_run("mis/train", "ours").finish()
    assert tracker.delivered
    assert len(tracker.said) == 1
    assert outboxes(tmp_path / "outbox") == [left.folder]


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


def test_a_run_of_which_a_part_waits_is_not_said_to_be_in_the_store(offline, monkeypatch):
    monkeypatch.setattr(recording, "SHORT_PATIENCE_S", 0.1)
    store = Store()
    monkeypatch.setattr(recording, "connect", lambda _: store)
    for has_gone, words in (
        (True, f"waiting in {offline.outboxes}; "),
        (False, " in MLflow server http://127.0.0.1:9"),
    ):
        with open_tracker(offline) as tracker, tracked(tracker.open_run(TRAIN, "run")) as run:
            store.away = False
            while run.id is None:
                time.sleep(0.001)
            store.away = has_gone
            run.log_metrics({"dice": 0.5})
        assert words in where(delivered_id(run), offline)
        assert run.id is not None


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


@pytest.fixture
def memory_store(monkeypatch):
    """A store in memory, to which `sync` delivers."""
    store = Store()
    monkeypatch.setattr("mis.track.sync.connect", lambda _: store)
    return store


def leave(settings, name, tmp_path=None):
    """Leave the outbox of a dead process with a run, and a file if there is a folder for it; return the outbox."""
    outbox, tracker = logging_to(settings.outboxes)
    run = tracker.open_run("mis/train", name, key={"key": name}, params={"rate": 1})
    run.log_metrics({"dice": 0.5}, 1)
    if tmp_path is not None:
        (tmp_path / "model.keras").write_text("weights")
        run.log_file(tmp_path / "model.keras", "model")
    run.finish()
    outbox.close(delivered=False)
    return outbox


def test_what_was_refused_is_named_and_delivered_whole_when_the_store_takes_it(
    settings, offline, tmp_path, memory_store
):
    memory_store.refused_runs = {"refused"}
    outbox, lines = leave(offline, "refused", tmp_path), []
    assert sync(offline, settings.root, lines.append) == 1
    kept = [refusal.operation.kind for refusal in read_refused(outbox.folder)]
    assert (kept, memory_store.runs) == (["open", "metrics", "file", "finish"], [])
    assert sum("MLflow refuses" in line for line in lines) <= 1, "its run is said, and not what belongs to it"
    assert f"4 operations were refused, kept in {outbox.folder / REFUSED}: open (no such run may be), " in lines[-2]
    assert "`python -m mis.track sync --refused` tries again" in lines[-1]
    for again in (False, True):
        assert sync(offline, settings.root, lines.append, refused=again) == 1
        assert len(read_refused(outbox.folder)) == 4
    memory_store.refused_runs = set()
    assert sync(offline, settings.root, lines.append, refused=True) == 0
    (run,) = memory_store.runs
    assert (run.params, run.metrics, run.status) == ({"rate": "1"}, {"dice": [(1, 0.5)]}, "FINISHED")
    assert run.files == {"model/model.keras": b"weights"}
    assert list(offline.outboxes.iterdir()) == []


def test_what_was_refused_of_a_run_that_was_opened_is_added_to_it(settings, memory_store):
    outbox, tracker = logging_to(settings.outboxes)
    run = tracker.open_run("mis/train", "run", key={"key": "a"})
    run.log_metrics({"bad": 1.0}, 1)
    run.finish()
    outbox.close(delivered=False)
    lines = []
    assert sync(settings, settings.root, lines.append) == 1
    (kept,) = memory_store.runs
    ended = (kept.status, kept.ended_ms)
    del kept.log_points  # which has refused the metric
    memory_store.deliver_run = pytest.fail
    assert sync(settings, settings.root, lines.append, refused=True) == 0
    assert (kept.metrics, (kept.status, kept.ended_ms)) == ({"bad": [(1, 1.0)]}, ended)
    assert list(settings.outboxes.iterdir()) == []


def test_what_was_refused_of_a_run_that_is_gone_stays(settings, memory_store):
    outbox, tracker = logging_to(settings.outboxes)
    tracker.open_run("mis/train", "run", key={"key": "a"}).log_metrics({"bad": 1.0}, 1)
    outbox.close(delivered=False)
    assert sync(settings, settings.root, lambda _: None) == 1
    memory_store.runs.clear()
    assert sync(settings, settings.root, lambda _: None, refused=True) == 1
    assert len(read_refused(outbox.folder)) == 1


def test_killed_while_it_puts_back_what_was_refused_sync_loses_nothing(settings, tmp_path, memory_store):
    """Every state of the disk that the writes allow."""
    memory_store.refused_runs = {"refused"}
    settings.outboxes.mkdir(parents=True)
    with watched(settings.outboxes) as disk:
        outbox = leave(settings, "refused", tmp_path)
        assert sync(settings, settings.root, lambda _: None) == 1
        whole = [refusal.operation for refusal in read_refused(outbox.folder)]
        disk.states.clear()
        put_back_refused(outbox.folder)
    assert len(disk.states) > 3
    for _ in disk.restore(tmp_path / "left"):
        folder = tmp_path / "left" / outbox.folder.name
        found = {refusal.operation.number: refusal.operation for refusal in read_refused(folder)}
        if (folder / LOG).exists():
            waiting = [Operation.from_line(line) for line in LineLog(folder / LOG).read()]
            found |= {operation.number: operation for operation in waiting if operation.kind != "begin"}
        assert list(found.values()) == whole


def test_a_file_that_is_missing_from_a_copy_is_named_and_the_rest_is_delivered(settings, tmp_path, memory_store):
    outbox, lines = leave(settings, "run", tmp_path), []
    shutil.copytree(settings.outboxes, tmp_path / "copy")
    copied = tmp_path / "copy" / outbox.folder.name
    shutil.rmtree(copied / "files")
    assert sync(settings, tmp_path / "copy", lines.append) == 1
    (run,) = memory_store.runs
    assert (run.status, run.files) == ("FINISHED", {})
    (line,) = [line for line in lines if line.startswith("1 operation was refused")]
    assert "model.keras is missing" in line
    assert not any("all is delivered" in line for line in lines)
    shutil.copytree(outbox.folder / "files", copied / "files")
    assert sync(settings, tmp_path / "copy", lines.append, refused=True) == 0
    assert (run.status, run.files) == ("FINISHED", {"model/model.keras": b"weights"})


def test_a_file_that_was_delivered_before_the_mark_was_written_is_not_missing(settings, tmp_path, memory_store):
    outbox = leave(settings, "run", tmp_path)
    shutil.copytree(outbox.folder, tmp_path / "again")
    assert sync(settings, settings.root, lambda _: None) == 0
    shutil.rmtree(tmp_path / "again" / "files")
    assert sync(settings, tmp_path / "again", lambda _: None) == 0
    assert memory_store.runs[0].files == {"model/model.keras": b"weights"}


def test_sync_passes_over_what_it_may_not_open(settings, memory_store, monkeypatch):
    """As an outbox of another user, whose lock may not be written."""
    denied, whole = leave(settings, "denied"), leave(settings, "whole")
    exclusive_lock = outbox_module.exclusive_lock

    def lock(path, refusal):
        if path.parent == denied.folder:
            raise PermissionError(13, "Permission denied", str(path))
        return exclusive_lock(path, refusal)

    monkeypatch.setattr(outbox_module, "exclusive_lock", lock)
    lines = []
    assert sync(settings, settings.root, lines.append) == 1
    assert [run.name for run in memory_store.runs] == ["whole"]
    assert any(str(denied.folder) in line and "Permission denied" in line for line in lines)
    assert not whole.folder.exists()


def test_sync_of_a_folder_counts_what_waits_in_it_where_there_is_no_server(settings):
    outbox = leave(settings, "run")
    for folder in (settings.root, settings.mlruns, settings.outboxes, outbox.folder):
        lines = []
        assert sync(settings, folder, lines.append) == 1
        assert lines[-1].startswith("3 operations of 1 run wait in ")


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
