"""Cells on a real Ray cluster, with real trainings, small."""

import os
import signal
import time
from dataclasses import replace

import pytest

from mis.data.records.source import RecordsSource
from mis.scaling import schedule
from mis.scaling.crew import Pool
from mis.scaling.measure import measure
from mis.scaling.plan import Cell
from mis.scaling.schedule import Schedule
from mis.tune.allocation import Place, Speeds
from mis.tune.elastic import Experience

pytestmark = pytest.mark.slow

EPOCHS = 3
CELLS = [Cell("data", 1, 1, 0), Cell("experiment", 2, 1, 0), Cell("data", 2, 2, 0), Cell("elastic", 2, 1, 0)]


@pytest.fixture(scope="module")
def trials(tiny_params):
    small = tiny_params.override({"model.norm": "none", "train.epochs": EPOCHS, "train.patience": EPOCHS})
    return [small.override({"train.learning_rate": rate}) for rate in (1e-3, 3e-3, 1e-2)]


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def pool(nodes, records, said):
    with Pool(nodes, [2], RecordsSource(records.folder), said.append) as pool:
        yield pool


@pytest.fixture(scope="module")
def measured(pool, trials, records, tmp_path_factory):
    """Each cell, by mode and number of devices.

    In the elastic one a device more is worth a restart at once, and the last trial's epochs are answered when the
    others have ended, so that a device is idle by then, however slow one of them is.
    """
    answer = Schedule._answer

    def answer_last_trial_alone(self, event):
        if event.trial == len(trials) - 1 and len(self._running) > 1:
            time.sleep(0.01)
            self._events.put(event)
        else:
            answer(self, event)

    folder, cases = tmp_path_factory.mktemp("cells"), len(records.split.train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "Experience", lambda *known: Experience(0.0, Speeds(per_doubling=1.0)))  # noqa: ARG005
        patch.setattr(Schedule, "_answer", answer_last_trial_alone)
        cells = [measure(cell, pool, trials, folder, cases=cases, target=1e-9) for cell in CELLS]
    assert list(folder.iterdir()) == []
    return {(cell.cell.mode, cell.cell.devices): cell for cell in cells}


def test_every_cell_runs_every_trial_to_its_end(measured):
    for cell in measured.values():
        assert [trial.trial for trial in cell.trials] == [0, 1, 2]
        assert {trial.epochs for trial in cell.trials} == {EPOCHS}
        assert cell.lost == 0


def traced(crew):
    """Return the process of a crew, and how often each network that it keeps was traced."""

    def count(worker):  # noqa: ARG001 - a gang calls it with the worker
        from mis.train.trial import GRAPH_CACHE

        steps = [network.model.train_function for network in GRAPH_CACHE.idle.values()]
        return [step.function.experimental_get_tracing_count() for step in steps]

    return crew.process_ids(), crew._gang.run(count, 20, 900, lambda report: None)  # noqa: ARG005


def test_nothing_is_started_or_traced_on_the_clock(pool, trials, records, tmp_path):
    cases = len(records.split.train)
    crew = pool.hire(Place(((0, 1),)))
    crew.warm_up(trials, tmp_path, cases)
    before = traced(crew)
    assert before[1] == [1], "the trials share a network, which is traced once"
    assert crew.cold_s > crew.restart_s > crew.start_s > 0
    pool.release(crew)
    cell = measure(CELLS[0], pool, trials, tmp_path, cases=cases)
    assert traced(crew) == before
    assert (cell.cold_s, cell.restart_s) == (crew.cold_s, crew.restart_s)


def test_each_process_is_bound_to_the_cores_of_its_devices(pool):
    pool.dismiss_all()
    crews = [pool.hire(Place(((0, 1),))) for _ in range(2)]
    assert [crew._bound_to() for crew in crews] == [[[0]], [[1]]]
    pool.release(crews[0])
    pool.dismiss(crews[0])
    assert pool.hire(Place(((0, 1),)))._bound_to() == [[0]], "the one that is free"
    pool.dismiss_all()
    assert pool.hire(Place(((0, 2),)))._bound_to() == [[0, 1]]
    pool.dismiss_all()


def test_networks_that_fit_their_own_trial_alone_are_all_traced_before_the_clock(pool, tiny_params, records, tmp_path):
    cases = len(records.split.train)
    trials = [{"model.norm": "group", "model.groups": 3, "model.base_filters": 9}, {"model.norm": "none"}]
    pool.dismiss_all()
    listed = [tiny_params.for_trial(values, 1) for values in trials]
    crew = pool.hire(Place(((0, 1),)))
    crew.warm_up(listed, tmp_path, cases)
    assert len(crew.trace_s) == 2
    pool.release(crew)
    assert traced(crew)[1] == [1, 1]


def test_no_device_has_two_trials_and_none_is_idle_for_long(measured):
    assert all(busy <= cell.cell.devices for cell in measured.values() for _, busy in cell.timeline.busy())
    for key in (("data", 1), ("experiment", 2), ("data", 2)):
        cell = measured[key]
        assert cell.restarts == 0
        assert {stretch.place.devices for stretch in cell.stretches} == {cell.cell.each}
    assert measured["data", 1].timeline.utilisation > 0.9
    first, second, third = measured["experiment", 2].trials
    assert second.begin_s < first.end_s  # at once
    assert third.begin_s >= min(first.end_s, second.end_s)  # as soon as a process is idle


def test_an_idle_device_joins_the_last_trial(measured):
    cell = measured["elastic", 2]
    assert cell.restarts >= 1
    assert [trial.devices for trial in cell.trials][-1] == 2
    last = [stretch for stretch in cell.stretches if stretch.trial == 2]
    assert [stretch.place.devices for stretch in last] == [1, 2]
    assert sum(stretch.epochs for stretch in last) == EPOCHS


def test_all_modes_compute_the_same(measured):
    for scores in zip(*([trial.dice for trial in cell.trials] for cell in measured.values()), strict=True):
        assert max(scores) - min(scores) < 1e-4


def test_the_target_is_reached_at_the_end_of_an_epoch(measured):
    for cell in measured.values():
        assert 0 < cell.target_s <= min(trial.end_s for trial in cell.trials)


def test_a_process_that_dies_costs_its_trial_an_epoch(pool, trials, records, said, tmp_path):
    killed = []

    def kill_once():
        """Kill the process of the first trial after its first epoch."""
        (crew,) = (crew for crew in pool.crews if crew.busy)
        if not killed:
            killed.append(crew.process_ids()[0])
            os.kill(killed[0], signal.SIGKILL)

    pool.release(pool.hire(Place(((0, 2),))))  # the crews with one device each are gone
    cell = measure(CELLS[2], pool, trials[:1], tmp_path, cases=len(records.split.train), on_epoch=kill_once)
    assert killed
    assert cell.lost == 1
    assert cell.trials[0].epochs == EPOCHS
    assert [stretch.epochs for stretch in cell.stretches] in ([1, EPOCHS - 1], [2, EPOCHS - 2])
    assert any("trial 000: worker 0" in line and "goes on from its last epoch" in line for line in said)
    undisturbed = measure(replace(CELLS[2], round=1), pool, trials[:1], tmp_path, cases=len(records.split.train))
    assert cell.trials[0].dice == pytest.approx(undisturbed.trials[0].dice, abs=1e-4)
