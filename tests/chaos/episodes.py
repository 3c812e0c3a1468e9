"""An episode: a search or a training, with random faults until it ends, and what must hold then."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mis.params.load import load_params
from mis.settings import Settings
from mis.track.base import TRAIN, TUNE
from mis.track.mlflow import MlflowTracker
from mis.track.sync import sync
from mis.tune.study.store import StudyStore
from tests.chaos import faults
from tests.cluster.conftest import Project
from tests.cluster.ray_machines import RayMachines
from tests.curves import dice_after
from tests.trainings import arguments
from tests.tune.study.test_decisions import SPACE, decisions, search

ROOT = Path(__file__).parents[2]

SEARCH = """
import sys
sys.path.insert(0, {root!r})
from functools import partial
from mis.cli import exit_code
from mis.data.records.reader import read_records
from mis.params.load import load_params
from mis.settings import load_settings
from mis.track.recording import open_tracker, reader
from mis.tune import session
from mis.tune.study.store import StudyStore
from tests.curves import Curves

def command():
    settings = load_settings()
    params = load_params(settings.workspace / "params.yaml", sys.argv[2:])
    session.run_study = partial(session.run_study, training=Curves(epoch_s={epoch_s}, size=2000))
    records = read_records(settings.records, params.data)
    path = session.studies_folder(settings) / sys.argv[1]
    with open_tracker(settings) as tracker:
        there = (path / "study.json").exists()
        store = StudyStore.open(path) if there else StudyStore.create(path, params, records.digest)
        context = session.StudyContext(records, tracker, reader(settings), settings, draw=lambda *_: ())
        session.run(store, context, retry_failed=True)

sys.exit(exit_code(command))
"""

MOST_FAULTS = 9
"""Of an episode; then it may come to its end."""

MOST_NODE_FAULTS = 3
"""Of an episode with nodes, each of which takes Ray a minute to notice."""

LONGEST_ON_NODES_S = 600.0
"""As `LONGEST_S`, with nodes."""

LONGEST_S = 240.0
"""Seconds of a command without a fault, after which it hangs."""

DELIVERED_WITHIN_S = 300.0
"""Seconds in which all must be delivered once MLflow answers again."""

ENDED_BY = {
    "command killed": (-signal.SIGKILL,),
    "command interrupted": (130, -signal.SIGINT),
    "command terminated": (143, 130, -signal.SIGTERM, 15, 1),  # the last two are Ray's own, before it has begun
}
"""The exit codes of a command to which something was done that ends it."""

ALLOWED = {
    "disk full": "must be space on the disk",
    "MLflow lost": "must name a server that answers",
    "MLflow hangs": "must name a server that answers",
    "MLflow's answers lost": "must name a server that answers",
}
"""What a command may end with, with exit code 2, where such a fault was done to it."""


class FoundError(AssertionError):
    """Something that must hold does not."""


@dataclass
class Report:
    """What an episode did.

    Attributes:
        kind: `search`, `training` or `nodes`, and with what.
        faults: The names of the faults, in their order.
    """

    kind: str = ""
    faults: list[str] = field(default_factory=list)


def check(holds, what):
    """Raise a finding where something does not hold."""
    if not holds:
        raise FoundError(what)


def run_to_its_end(start, target, drawn, most_faults):
    """Start a command again and again, with faults, until it has ended by itself."""
    while True:
        since = len(target.done)
        target.process = start()
        disturb(target, drawn, most_faults)
        _out, err = target.process.communicate()
        if target.process.returncode == 0:
            return
        check_ended(target.process.returncode, err, target.done, since)
        if len(target.done) < most_faults and drawn.random() < 0.5:
            name = drawn.choice(list(faults.AT_REST))
            target.hog.unlink(missing_ok=True)  # what damages a file may have to write into it
            if faults.AT_REST[name](target):
                target.done.append(name)
        if len(target.done) >= most_faults or drawn.random() < 0.8:
            faults.mend(target)


def disturb(target, drawn, most_faults):
    """Do faults to a command that runs, until it has ended."""
    begun = time.monotonic()
    next_at = begun + drawn.uniform(0.2, 12.0)
    while target.process.poll() is None:
        time.sleep(0.05)
        if time.monotonic() - begun > LONGEST_S:
            target.process.kill()
            raise FoundError(f"the command hangs, faults {target.done}: {target.process.communicate()[1][-2000:]}")
        if time.monotonic() < next_at:
            continue
        next_at = time.monotonic() + drawn.uniform(0.2, 5.0)
        if len(target.done) >= most_faults:
            faults.mend(target)
            next_at = float("inf")
            continue
        name = drawn.choice([*faults.RUNNING, *faults.OFTEN * 3])
        if target.process.poll() is None and faults.RUNNING[name](target):
            target.done.append(name)
        if drawn.random() < 0.4:  # some faults end while the command goes on
            faults.mend(target)


def check_ended(code, err, done, since):
    """Check that a command that did not come to its end has ended as it must."""
    newest = done[since:]
    told = f"exit code {code} after {newest}: {err[-3000:]}"
    if code == 2:
        last = ([line for line in err.splitlines() if line.strip()] or [""])[-1]
        check(any(text in last for name, text in ALLOWED.items() if name in done), told)
    else:
        check(code in {number for name in newest for number in ENDED_BY.get(name, ())}, told)
    check("Traceback" not in err or any(name in ENDED_BY for name in newest), told)


def deliver_all(project, tracking_uri):
    """Deliver what waits, twice; then nothing may wait."""
    own = Settings(root=project, workspace=project, tracking_uri=tracking_uri)
    said, deadline = [], time.monotonic() + DELIVERED_WITHIN_S
    for _ in range(2):
        while sync(own, None, said.append) != 0:  # the server has all the requests to answer that it was kept from
            check(time.monotonic() < deadline, f"sync has not delivered all: {said}")
    left = [path for path in own.outboxes.glob("*/*") if path.name == "refused.jsonl"]
    check(not left, f"MLflow has refused something: {[path.read_text() for path in left]}")


def steps_of(client, run):
    """Return the steps of a run's validation Dice, with their values."""
    history = client.get_metric_history(run.info.run_id, "val/dice")
    return [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)]


# ---- A search ----


def draw_search(drawn):
    """Draw the parameters of a search, and on how many devices."""
    scheduler = drawn.choice(("asha", "median", "hyperband", "none", "pbt"))
    sampler = "random" if scheduler == "pbt" else drawn.choice(("tpe", "random", "cmaes"))
    epochs, devices = drawn.randint(4, 9), drawn.choice((1, 2))
    elastic = devices == 2 and scheduler != "pbt" and drawn.random() < 0.4
    values = {
        "train.patience": epochs,
        "train.batch_size": 2,
        "tune.num_samples": drawn.randint(4, 8),
        "tune.epochs": epochs,
        "tune.keep": 8,
        "tune.max_failures": 30,
        "tune.stall_s": 12.0,
        "tune.allocation": "elastic" if elastic else "fixed",
        "tune.space": SPACE,
        "tune.sampler": {"name": sampler, "seed": drawn.randint(0, 999)},
        "tune.scheduler": {"name": scheduler, "grace_epochs": 1, "reduction_factor": 2, "interval_epochs": 2},
    }
    return values, devices


def search_episode(world, seed, name, report):
    """Search under faults, and check what is there at the end."""
    drawn = random.Random(seed)  # noqa: S311 - no secret
    values, devices = draw_search(drawn)
    allocation, scheduler, sampler = values["tune.allocation"], values["tune.scheduler"]["name"], values["tune.sampler"]
    report.kind = f"search, {sampler['name']}, {scheduler}, {devices} devices, {allocation}"
    with world.project(name) as project:
        target = faults.Target(project, None, world.proxy, drawn, report.faults)
        env = world.environment(project, MIS_DEVICES=str(devices), PYTHONPATH=str(ROOT))
        sets = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        source = SEARCH.format(root=str(ROOT), epoch_s=0.25)

        def start():
            offline = {"MIS_OFFLINE": "1"} if drawn.random() < 0.2 else {}
            return world.searches.start(name, *sets, source=source, cwd=project, env=env | offline)

        try:
            run_to_its_end(start, target, drawn, drawn.randint(2, MOST_FAULTS))
        finally:
            faults.mend(target)
        deliver_all(project, world.proxy.uri)
        params = load_params(project / "params.yaml", sets)
        store = StudyStore.open(project / "checkpoints" / "tune" / name)
        check_store(store, values)
        # Where the process of a trial was lost, another one may have had its turn first.
        if devices == 1 and not (scheduler == "pbt" and {"trial killed", "trial halted"} & set(report.faults)):
            undisturbed = search(world.base / f"{name}-undisturbed" / "study", params, devices=1)
            same = decisions(store) == decisions(undisturbed)
            check(same, f"decided\n{decisions(store)}\ninstead of\n{decisions(undisturbed)}")
        check_runs(world.store, store)


def check_store(store, values):
    """Check that each trial is there once, with every epoch once and nothing that runs."""
    trials = store.trials()
    check([trial.number for trial in trials] == list(range(values["tune.num_samples"])), f"trials {trials}")
    check(store.mend() == [], "a file cannot be read")
    check(store.interrupted() == [], f"interrupted: {store.interrupted()}")
    for trial in trials:
        check(trial.state in ("completed", "stopped"), f"trial {trial.name} is {trial.state}: {trial.error}")
    check(store.journal.unended() == [], f"for Optuna still running: {store.journal.unended()}")
    for trial in trials:
        known = store.journal.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        check(sorted(known) == list(range(1, len(trial.history) + 1)), f"trial {trial.name}: compared after {known}")
        check(trial.state == "stopped" or len(trial.history) == values["tune.epochs"], f"{trial.name} has ended early")
        if not store.is_population:
            expected = [dice_after(trial.values, trial.number, epoch + 1) for epoch in range(len(trial.history))]
            check([epoch["val/dice"] for epoch in trial.history] == expected, f"trial {trial.name}: {trial.history}")


def check_runs(settings, store):
    """Check that MLflow has the study and each trial once, ended, with every epoch once."""
    client = MlflowTracker(settings).client
    experiment = client.get_experiment_by_name(TUNE)
    runs = client.search_runs([experiment.experiment_id], f"tags.`mis.study` = '{store.name}'", max_results=1000)
    children = sorted((run for run in runs if "mis.trial" in run.data.tags), key=lambda run: run.data.tags["mis.trial"])
    states = [(run.info.run_name, run.info.status) for run in runs]
    check({status for _, status in states} == {"FINISHED"}, f"MLflow has {states}")
    check(len(runs) == len(children) + 1, f"MLflow has {states}")
    check([run.data.tags["mis.trial"] for run in children] == [trial.name for trial in store.trials()], f"{states}")
    (parent,) = [run for run in runs if run not in children]
    for trial, run in zip(store.trials(), children, strict=True):
        check(run.data.tags["mlflow.parentRunId"] == parent.info.run_id, f"{run.info.run_name} has another parent")
        check(run.data.tags["mis.state"] == trial.state, f"{run.info.run_name}: {run.data.tags['mis.state']}")
        expected = [(epoch + 1, entry["val/dice"]) for epoch, entry in enumerate(trial.history)]
        check(steps_of(client, run) == expected, f"{run.info.run_name}: {steps_of(client, run)}, not {expected}")


# ---- A training ----

_UNDISTURBED = {}


def training_episode(world, seed, name, report):
    """Train under faults; the result is that of the same training undisturbed."""
    drawn = random.Random(seed)  # noqa: S311 - no secret
    options = arguments(train__seed=drawn.randint(1, 2), train__batch_size=2)
    report.kind = "training"
    if tuple(options) not in _UNDISTURBED:
        with world.project(f"{name}-undisturbed") as project:
            process = _train(world, project, options)
            _out, err = process.communicate()
            check(process.returncode == 0, f"undisturbed: {err[-2000:]}")
            _UNDISTURBED[tuple(options)] = finished_training(world, 0.0)
    begun_ms = time.time() * 1000
    with world.project(name) as project:
        target = faults.Target(project, None, world.proxy, drawn, report.faults)
        try:
            run_to_its_end(lambda: _train(world, project, options), target, drawn, drawn.randint(2, MOST_FAULTS))
        finally:
            faults.mend(target)
        deliver_all(project, world.proxy.uri)
        had, expected = finished_training(world, begun_ms), _UNDISTURBED[tuple(options)]
        check(had == expected, f"trained\n{had}\ninstead of\n{expected}")


def _train(world, project, options):
    return world.trainings.start(*options, module="mis.train", cwd=project, env=world.environment(project))


def finished_training(world, since_ms):
    """Return the epochs of the one training that has ended since then; none runs, and no other has an epoch."""
    client = MlflowTracker(world.store).client
    experiment = client.get_experiment_by_name(TRAIN)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    runs = [run for run in runs if run.info.start_time >= since_ms]
    states = [(run.info.run_name, run.info.status) for run in runs]
    check("RUNNING" not in {status for _, status in states}, f"MLflow has {states}")
    ended = [run for run in runs if steps_of(client, run)]
    newest = max(ended, key=lambda run: run.info.start_time)
    check(since_ms == 0.0 or ended == [newest], f"MLflow has {states}, several with epochs")
    check(newest.info.status == "FINISHED", f"MLflow has {states}")
    return steps_of(client, newest)


# ---- A search over two nodes ----


def nodes_episode(world, seed, name, report):
    """Search over two nodes, of which one is cut off or lost, the first one with Ray's head and the command."""
    if world.machines is None:
        search_episode(world, seed, name, report)
        return
    drawn = random.Random(seed)  # noqa: S311 - no secret
    values, _ = draw_search(drawn)
    values |= {"tune.stall_s": 60.0, "train.batch_size": 4}
    report.kind = f"nodes, {values['tune.sampler']['name']}, {values['tune.scheduler']['name']}"
    project = Project(world.base / name, world.base / "records")
    ray = RayMachines(world.machines, project, project.folder)
    sets = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    try:
        most = drawn.randint(1, MOST_NODE_FAULTS)
        while not run_on_nodes(ray, name, sets, drawn, report.faults, most):
            pass
    finally:
        ray.stop()
        for machine in list(world.machines.cut):
            world.machines.join(machine)
    own = Settings(project.folder, project.folder, f"sqlite:///{project.folder}/mlruns/mlflow.db")
    deliver_all(project.folder, own.tracking_uri)
    store = StudyStore.open(project.folder / "checkpoints" / "tune" / name)
    check_store(store, values)
    check_runs(own, store)


def run_on_nodes(ray, name, sets, drawn, done, most):
    """Start Ray and the search, and do faults to nodes until it ends; return whether it has ended by itself."""
    ray.start()
    process = ray.command("-c", SEARCH.format(root=str(ROOT), epoch_s=2.0), name, *sets)
    begun = time.monotonic()
    next_at = begun + drawn.uniform(5.0, 25.0)
    while process.poll() is None:
        time.sleep(0.1)
        if time.monotonic() - begun > LONGEST_ON_NODES_S:
            process.kill()
            raise FoundError(f"the command hangs, faults {done}: {process.communicate()[1][-2000:]}")
        if time.monotonic() < next_at:
            continue
        next_at = time.monotonic() + drawn.uniform(5.0, 40.0)
        disturb_nodes(ray, drawn, done, most)
    _out, err = process.communicate()
    ray.stop()
    for machine in list(ray.machines.cut):
        ray.machines.join(machine)
    if process.returncode == 0:
        check("Traceback" not in err, err[-3000:])
        return True
    # The second node was away at the start.
    refused = process.returncode == os.EX_TEMPFAIL and "has not answered" in err
    check("head lost" in done or refused, f"exit code {process.returncode} after {done}: {err[-3000:]}")
    return False


def disturb_nodes(ray, drawn, done, most):
    """Do a fault to a node, or let the second one come back."""
    if ray.machines.cut:
        ray.machines.join("n2")
        ray.lose("n2")  # Ray has given it up, for good
        ray.start_again("n2")
    elif "n2" not in ray.steps:
        ray.start_again("n2")
    elif len(done) < most:
        done.append(drawn.choice(("node cut off", "node lost", "head lost")))
        {
            "node cut off": partial(ray.machines.cut_off, "n2"),
            "node lost": partial(ray.lose, "n2"),
            "head lost": ray.lose_head,
        }[done[-1]]()


EPISODES = (search_episode,) * 7 + (training_episode,) * 2 + (nodes_episode,)


def run_episode(world, seed, name, report):
    """Run the episode of a seed, and report what it does."""
    drawn = random.Random(f"{seed} kind")  # noqa: S311 - no secret
    drawn.choice(EPISODES)(world, seed, name, report)
