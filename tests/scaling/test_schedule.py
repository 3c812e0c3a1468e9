"""The schedule with crews that train nothing: who gets which devices, and what becomes of processes that are lost."""

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mis.data.records.source import RecordsSource
from mis.errors import MisError, WorkerError
from mis.scaling import crew
from mis.scaling.crew import Crew, Pool
from mis.scaling.schedule import ListedTrial, Schedule
from mis.scaling.timeline import Timeline
from mis.train.allocate import Node
from mis.train.heartbeat import WorkerLostError
from mis.tune.allocation import Cluster

EPOCHS = 4
METRICS = {"time/samples_per_s": 10.0, "time/input_share": 0.0, "time/communication_share": 0.0, "train/loss": 0.5}


class FakeCrew(Crew):
    """Ends epochs at once; where `errors` has one for the trial and the epoch, it is raised once."""

    errors: ClassVar[dict] = {}
    epochs: ClassVar[dict] = {}

    def train(self, params, checkpoints, on_epoch, keep_networks=1):  # noqa: ARG002
        history = self.epochs.setdefault(checkpoints.folder, [])
        while len(history) < params.train.epochs:
            error = self.errors.pop((checkpoints.folder.name, len(history) + 1), None)
            if error is not None:
                raise error
            total_s = 1e-6 * (len(history) + 1)
            times = {"time/epoch_s": 1e-6, "time/total_s": total_s, "time/devices": self.place.devices}
            history.append({**METRICS, **times, "val/dice": 0.1 * len(history)})
            if not on_epoch(list(history)):
                return


@pytest.fixture(scope="module")
def run(params, tmp_path_factory):
    """Run a list of trials on nodes; `errors` says which are raised."""

    def run(nodes, sizes, errors=None, restart_s=0.0, said=None):
        given_params = params.override({"train.epochs": EPOCHS, "train.patience": 99})
        available = [Node(cpus=count, gpus=0, name=str(number)) for number, count in enumerate(nodes)]
        folder = tmp_path_factory.mktemp("cell")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(crew, "Crew", FakeCrew)
            patch.setattr(FakeCrew, "errors", dict(errors or {}))
            patch.setattr(FakeCrew, "epochs", {})
            with Pool(available, nodes, RecordsSource(folder), (said if said is not None else []).append) as pool:
                trials = [ListedTrial(given_params, sizes) for _ in range(5)]
                schedule = Schedule(trials, Cluster(tuple(nodes)), pool, folder, cases=10, restart_s=restart_s)
                return schedule.run()

    return run


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    sizes=st.sampled_from([(1,), (1, 2), (1, 2, 4)]),
)
def test_every_trial_has_all_epochs_and_no_device_two_trials(run, nodes, sizes):
    ran = run(nodes, sizes)
    assert [trial.trial for trial in ran.trials] == list(range(5))
    assert {trial.epochs for trial in ran.trials} == {EPOCHS}
    assert sum(stretch.epochs for stretch in ran.stretches) == 5 * EPOCHS
    for node, most in enumerate(nodes):
        changes = sorted(
            change
            for stretch in ran.stretches
            for change in (
                (stretch.begin_s, 1, dict(stretch.place.counts).get(node, 0)),
                (stretch.end_s, 0, -dict(stretch.place.counts).get(node, 0)),
            )
        )
        busy = 0
        for _, _, change in changes:
            busy += change
            assert busy <= most
    assert Timeline(tuple(nodes), ran.stretches).utilisation <= 1 + 1e-9
    if sizes == (1,):
        assert ran.restarts == 0


@pytest.mark.parametrize("epoch", [1, 2, EPOCHS])
def test_a_process_that_is_lost_costs_its_trial_an_epoch(run, epoch):
    said = []
    ran = run([2], (1,), {("trial-001", epoch): WorkerLostError("worker 0 died")}, said=said)
    assert ran.lost == 1
    assert {trial.epochs for trial in ran.trials} == {EPOCHS}
    epochs = [stretch.epochs for stretch in ran.stretches if stretch.trial == 1]
    assert epochs == [epoch - 1, EPOCHS - epoch + 1]
    assert said == ["trial 001: worker 0 died; it goes on from its last epoch"]


def test_one_that_is_lost_again_and_again_ends_the_comparison(run, params):
    allowed = params.distribute.max_restarts
    assert allowed < EPOCHS
    errors = {("trial-001", epoch): WorkerLostError("worker 0 died") for epoch in range(1, allowed + 2)}
    with pytest.raises(WorkerError, match=rf"trial 001: worker 0 died; it was started again {allowed} times"):
        run([2], (1,), errors)


def test_bad_input_ends_the_comparison(run):
    with pytest.raises(MisError, match="the rule"):
        run([2], (1,), {("trial-003", 2): MisError("the rule")})


def test_an_error_in_a_training_ends_the_comparison(run):
    with pytest.raises(ValueError, match="nonsense"):
        run([2], (1,), {("trial-003", 2): ValueError("nonsense")})
