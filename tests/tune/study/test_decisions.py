"""A search that is killed again and again decides what the same search decides undisturbed.

The trials have known curves. The driver here is what the one on Ray does, without Ray: as many trials at once as there
are devices, and of these the one that has had the fewest epochs next. It is killed before any of its writes.
"""

import math
import random

import pytest

import mis.files
from mis.track.base import TUNE, tracked
from mis.track.memory import MemoryTracker
from mis.track.names import KIND_TAG, STUDY_TAG
from mis.train.allocate import Node, allocate
from mis.tune.epochs import reports
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from mis.tune.trial import Verdict
from tests.curves import next_epoch
from tests.power import watched

EPOCHS, TRIALS, DEVICES = 9, 14, 3

SPACE = {
    "train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "train.beta_1": {"type": "float", "low": 0.5, "high": 0.99},
}

LISTED = {
    "train.learning_rate": {"type": "choice", "values": [1e-4, 1e-3, 1e-2, 1e-1]},
    "train.beta_1": {"type": "choice", "values": [0.6, 0.7, 0.8, 0.9]},
}

SEARCHES = [
    (sampler, scheduler) for sampler in ("tpe", "random") for scheduler in ("asha", "median", "hyperband", "none")
] + [("cmaes", "asha"), ("gp", "asha"), ("grid", "hyperband"), ("random", "pbt")]


class Killed(BaseException):
    """The driver, or a worker, is killed."""


@pytest.fixture
def writes(monkeypatch):
    """Counts the writes to the disk, and kills before the one of which the number is given."""

    class Writes:
        count = 0
        last = math.inf

    def counted(write):
        def counting(*arguments):
            Writes.count += 1
            if Writes.count >= Writes.last:
                raise Killed
            write(*arguments)

        return counting

    monkeypatch.setattr(mis.files, "sync", counted(mis.files.sync))
    monkeypatch.setattr(mis.files, "_write_all", counted(mis.files._write_all))
    return Writes


def train_epoch(store, trial):
    """Do what a trial's worker does in an epoch, and return its history."""
    store.take_over(trial.number, trial.values)
    store.checkpoints(trial.number).set_aside_unreadable()
    return next_epoch(store, trial.number, trial.values)


def search(path, params, devices=DEVICES, tracker=None):
    """Run a study to its end, from wherever it is."""
    store = StudyStore.open(path) if path.exists() else StudyStore.create(path, params)
    tracker = tracker or MemoryTracker()
    study = tracker.open_run(TUNE, "study", key={STUDY_TAG: store.name, KIND_TAG: "study"})
    with store.locked(), tracked(study):
        store.mend()
        store.catch_up()
        monitor = StudyMonitor(store, allocate([Node(1, 0)], 1), tracker, study)
        monitor.end_decided()
        waiting, running = store.interrupted(), {}
        left = store.total - len(store.journal.numbers())
        while True:
            while (left or waiting) and (len(running) < devices or store.is_population):
                if not waiting:
                    waiting, left = [store.next_trial()], left - 1
                trial = waiting.pop(0)
                running[trial.number] = trial
                monitor.begin(trial)
            if not running:
                return store
            turn = store.tune.scheduler.interval_epochs if store.is_population else 1
            trial = min(
                running.values(), key=lambda each: (len(store.checkpoints(each.number).history()) // turn, each.number)
            )
            history = train_epoch(store, trial)
            verdict = store.judge(trial.number, reports(history)[-1])
            monitor.epoch_ended(trial.number, reports(history)[-1])
            if verdict is Verdict.STOP or len(history) == store.tune.epochs:
                monitor.ended(trial.number)
                del running[trial.number]


def decisions(store):
    """Return what was suggested and decided of each trial, without what it took."""
    return [(trial.number, trial.values, trial.state, len(trial.history)) for trial in store.trials()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sampler", "scheduler"), SEARCHES)
def test_a_killed_search_decides_as_the_undisturbed_one(params, tmp_path, writes, sampler, scheduler, seed):
    params = params.override(
        {
            "train.patience": EPOCHS,
            "tune.num_samples": TRIALS,
            "tune.epochs": EPOCHS,
            "tune.space": LISTED if sampler == "grid" else SPACE,
            "tune.sampler": {"name": sampler, "seed": seed},
            "tune.scheduler": {"name": scheduler, "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 2},
        }
    )
    undisturbed = search(tmp_path / "undisturbed" / "study", params)
    expected = decisions(undisturbed)
    assert len(expected) == TRIALS
    stopped = [trial for trial in undisturbed.trials() if trial.state == "stopped"]
    assert bool(stopped) == (scheduler in ("asha", "median", "hyperband"))
    assert any(undisturbed.donor(number) is not None for number in range(TRIALS)) == (scheduler == "pbt")
    moments, kills, whole = random.Random(seed), 0, writes.count  # noqa: S311 - no secret
    while True:
        writes.last = writes.count + moments.randint(1, whole // 4)
        try:
            store = search(tmp_path / "killed" / "study", params)
        except Killed:
            kills += 1
        else:
            break
    assert kills > 3
    assert decisions(store) == expected
    known = [StudyStore.open(each.path).journal.study.get_trials() for each in (undisturbed, store)]
    for one, other in zip(*known, strict=True):
        assert (one.state, one.value, one.intermediate_values) == (other.state, other.value, other.intermediate_values)
        assert (one.params, one.system_attrs, one.user_attrs) == (other.params, other.system_attrs, other.user_attrs)


def test_a_search_goes_on_from_all_that_a_loss_of_power_may_leave(params, tmp_path):
    small = {
        "train.patience": EPOCHS,
        "tune.num_samples": 4,
        "tune.keep": 4,
        "tune.epochs": 4,
        "tune.space": SPACE,
        "tune.sampler": {"name": "random", "seed": 1},
        "tune.scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 1},
    }
    params = params.override(small)
    root = tmp_path / "tune"
    root.mkdir()
    with watched(root) as disk:
        expected = decisions(search(root / "study", params))
    assert {state for _, _, state, _ in expected} == {"completed", "stopped"}
    assert len(disk.states) > 200
    left = tmp_path / "left"
    for number, _ in enumerate(disk.restore(left)):
        store = search(left / "study", params)
        assert decisions(store) == expected, f"state {number}"
        assert all(trial.best_model is not None for trial in store.trials())
