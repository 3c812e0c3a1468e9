"""Whose fault it is that trials fail before their first epoch; Ray's events are made by hand."""

from types import SimpleNamespace

import pytest

from mis.files import write_json
from mis.track.base import TUNE
from mis.track.memory import MemoryTracker
from mis.train.allocate import Node, allocate
from mis.tune.ray.callback import MonitorCallback
from mis.tune.ray.messages import config_of
from mis.tune.ray.stall import Processes
from mis.tune.study.monitor import MOST_BEGINNINGS, StudyMonitor
from mis.tune.study.store import StudyStore

REASON = "MisError: the checkpoints of trial 000 must be seen in /studies/x within a minute, got those of 0 epochs"


class OnNode(Processes):
    """Processes that are all on one node, of which the test gives the name; None where Ray knows of none."""

    node = "good"

    def of(self, trial):  # noqa: ARG002
        return None if self.node is None else (self.node, 1)

    def host(self, node):
        return f"host-{node}"


@pytest.fixture
def study(params, tmp_path, monkeypatch):
    """A callback of a study of four trials, with functions that let a trial start and fail."""
    values = {"tune.num_samples": 4, "tune.max_failures": 0, "tune.scheduler.name": "none"}
    store = StudyStore.create(tmp_path / "study", params.override(values))
    tracker, said = MemoryTracker(), []
    monitor = StudyMonitor(store, allocate([Node(1, 0)], 1), tracker, tracker.open_run(TUNE, "study"))
    monkeypatch.setattr(monitor.console, "say", said.append)
    monkeypatch.setattr("mis.tune.ray.callback.reason_of", lambda _: REASON)
    callback = MonitorCallback(monitor, OnNode())

    def begin(trial):
        metadata = SimpleNamespace(num_failures=1, metric_analysis={}, metric_n_steps={})
        config = config_of(trial, trial.values, 0)
        known = SimpleNamespace(trial_id=str(len(callback.numbers)), config=config, error_file=None)
        known.run_metadata = metadata
        return known

    def start(trial):
        known = begin(trial)
        callback.on_trial_start(0, [], known)
        return known

    def fail(known):
        callback.on_trial_error(0, [], known)

    return SimpleNamespace(
        store=store, monitor=monitor, callback=callback, begin=begin, start=start, fail=fail, said=said
    )


def old_start(store, trial):
    """Leave the note of a start in an earlier session, on a node that was good."""
    folder = store.folder.trial(trial.number)
    folder.path.mkdir(parents=True)
    write_json(folder.started, {"node": "good", "host": "host-good", "pid": 1})


def test_a_start_that_fails_before_it_has_noted_itself_is_its_own_nodes_fault(study):
    """What lies in the trial's folder is of an earlier start."""
    for _ in range(3):
        trial = study.store.next_trial()
        old_start(study.store, trial)
        study.callback.processes.node = "bad"
        study.fail(study.start(trial))
    assert list(study.monitor.bad_nodes.left_out) == ["bad"]
    assert study.said[-1].startswith("node host-bad is left out: 3 trials in a row failed there before an epoch")
    assert sorted(study.monitor.again) == [0, 1, 2], "the study is not used up"
    assert study.store.trials() == []


def test_a_start_without_a_note_is_its_nodes_fault_too(study):
    study.callback.processes.node = "bad"
    for _ in range(3):
        study.fail(study.start(study.store.next_trial()))
    assert list(study.monitor.bad_nodes.left_out) == ["bad"]


def test_a_start_that_came_to_no_process_is_no_nodes_fault(study):
    """Be it that the trial had one before: then it fails by itself."""
    trial = study.store.next_trial()
    known = study.start(trial)
    study.callback.on_trial_recover(0, [], known)
    study.fail(known)
    assert study.monitor.bad_nodes.failed_on("good") == {0}
    study.callback.processes.node = None
    for _ in range(3):
        known = study.start(study.store.next_trial())
        study.fail(known)
    assert study.monitor.bad_nodes.left_out == {}
    assert [trial.state for trial in study.store.trials()] == ["failed"] * 4


def test_a_trial_does_not_begin_again_without_end(study):
    """Wherever Ray says that it was, and however often."""
    study.callback.processes.node = "bad"
    waiting, starts = [study.store.next_trial() for _ in range(4)], 0
    while waiting:
        study.fail(study.start(waiting.pop(0)))
        starts += 1
        waiting += [study.store.begun(number) for number in study.monitor.again]
        study.monitor.again.clear()
        assert starts < 99, "it begins again and again"
    assert [trial.state for trial in study.store.trials()] == ["failed"] * 4
    assert starts > 4 * MOST_BEGINNINGS


@pytest.mark.parametrize(
    ("epochs", "said"), [(0, "trial 000 is tried again: "), (1, "trial 000 goes on from its last")]
)
def test_a_trial_that_starts_again_says_from_where(study, epochs, said):
    trial = study.store.next_trial()
    known = study.start(trial)
    if epochs:
        checkpoint = study.store.checkpoints(0).folder / "epoch-0001"
        checkpoint.mkdir(parents=True)
        write_json(checkpoint / "history.json", [{"val/dice": 0.5, "train/loss": 0.5, "time/total_s": 1.0}])
    study.callback.on_trial_recover(0, [], known)
    assert study.said[-1].startswith(said)
