"""Files of another node that are seen late, or not at all: never an error at once, never an empty history."""

import threading

import pytest

from mis.errors import MisError
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train import checkpoint
from mis.train.allocate import Node, allocate
from mis.tune.epochs import reports
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from tests.curves import next_epoch


@pytest.fixture
def monitor(params, tmp_path):
    """The monitor of a study whose first trial runs."""
    store, tracker = StudyStore.create(tmp_path / "study", params), MemoryTracker()
    monitor = StudyMonitor(store, allocate([Node(1, 0)], 1), tracker, tracker.open_run(TUNE, "study"))
    monitor.begin(store.next_trial())
    return monitor


def train(monitor, epochs):
    """Let the trial have some epochs, and return its history and the folder of its newest checkpoint."""
    trial = monitor.store.begun(0)
    for _ in range(epochs):
        history = next_epoch(monitor.store, 0, trial.values)
        monitor.epoch_ended(0, reports(history)[-1])
    return history, monitor.store.checkpoints(0).newest()


class Late:
    """A folder that is seen only once somebody has looked for it several times."""

    def __init__(self, monkeypatch, folder):
        self.folder, self.hidden, self.looks = folder, folder.with_name(".hidden"), 0
        folder.rename(self.hidden)
        monkeypatch.setattr(checkpoint.time, "sleep", self.look)

    def look(self, _seconds):
        self.looks += 1
        if self.looks == 3:
            self.hidden.rename(self.folder)


def test_the_driver_waits_for_the_newest_checkpoint_of_a_trial_that_has_ended(monitor, monkeypatch):
    history, newest = train(monitor, 3)
    late = Late(monkeypatch, newest)
    monitor.ended(0)
    assert late.looks == 3
    (trial,) = monitor.store.trials()
    assert list(trial.history) == history
    assert trial.best_model == newest / "best.keras"


def test_where_checkpoints_are_never_seen_the_study_is_left_and_the_trial_not_recorded_as_one_without_epochs(
    monitor, monkeypatch
):
    """Before, such a trial was recorded as stopped after 0 epochs, and its model lost."""
    _, newest = train(monitor, 3)
    for path in newest.parent.glob("epoch-*"):
        path.rename(path.with_name(f".hidden-{path.name}"))
    monkeypatch.setattr(checkpoint.seen, "__defaults__", (0.0,))
    rule = r"the checkpoints of trial 000 must be seen in .* got those of 0 epochs, where it has reported 3; keep the"
    with pytest.raises(MisError, match=rule):
        monitor.ended(0)
    assert monitor.store.trials() == []
    assert [trial.number for trial in monitor.store.interrupted()] == [0]


def test_a_checkpoint_that_is_seen_and_cannot_be_read_is_not_waited_for(monitor, monkeypatch):
    history, newest = train(monitor, 3)
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _: pytest.fail("it waits"))
    (newest / "history.json").write_text("")
    monitor.ended(0)
    (trial,) = monitor.store.trials()
    assert list(trial.history) == history[:2]


class Workers:
    """The chief and another worker, which share numbers through a barrier, each in a thread."""

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=60)
        self.value = {}

    def of(self, rank):
        workers = self

        class Worker:
            def of_chief(self, value):
                workers.value[rank] = value
                workers.barrier.wait()
                return workers.value[0]

            def agree(self, value, what):
                workers.value[rank] = value
                workers.barrier.wait()
                if len(set(workers.value.values())) > 1:
                    raise MisError(f"{what} must be the same for every worker")

        return Worker()


def test_a_worker_goes_on_from_the_chiefs_checkpoint_once_it_sees_that(monitor, monkeypatch, tmp_path):
    history, newest = train(monitor, 3)
    elsewhere = tmp_path / "as-another-node-sees-it"
    elsewhere.mkdir()
    older = newest.with_name("epoch-0002")
    (elsewhere / older.name).symlink_to(older)

    def look(_seconds):
        if not (elsewhere / newest.name).exists():
            (elsewhere / newest.name).symlink_to(newest)

    monkeypatch.setattr(checkpoint.time, "sleep", look)
    workers, found = Workers(), {}

    def worker(rank, folder):
        checkpoints = checkpoint.Checkpoints(folder, writes=rank == 0)
        found[rank] = checkpoints.history_of(workers.of(rank))

    threads = [threading.Thread(target=worker, args=each) for each in ((0, newest.parent), (1, elsewhere))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: history, 1: history}
