"""A study on Ray Tune: many trials at once, each on its share of the devices.

The driver, which is this process, is the only one that writes to the tracker and that begins and ends trials in the
study's store. Ray schedules; it keeps nothing: checkpoints and what was reported are in the store.
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import TrialScheduler

from mis.data.records.source import RecordsSource
from mis.errors import MisError
from mis.settings import environment
from mis.track.base import Run, Tracker
from mis.train.allocate import Node, Share
from mis.train.cluster import alive_nodes
from mis.train.messages import WORKERS_LISTEN
from mis.tune.allocation import Cluster, sizes_for
from mis.tune.elastic import ElasticAllocation, Experience
from mis.tune.ray.callback import BudgetStopper, MonitorCallback
from mis.tune.ray.elastic import ElasticScheduler
from mis.tune.ray.placing import Nodes, fixed_request, has_room
from mis.tune.ray.schedulers import make_scheduler
from mis.tune.ray.searcher import make_searcher
from mis.tune.ray.stall import Processes
from mis.tune.ray.task import Training
from mis.tune.ray.training import train_network
from mis.tune.ray.visible import check_nodes_reach, check_nodes_see
from mis.tune.ray.worker import run_worker
from mis.tune.study.layout import RAY_STATE_PREFIX
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""The variables with keys that Ray Tune hands on by itself."""


def run_study(
    store: StudyStore,
    share: Share,
    *,
    records: RecordsSource,
    tracker: Tracker,
    study: Run,
    contents: Callable[[], Mapping[str, np.ndarray]] | None = None,
    describe: Callable[[Run], None] = lambda run: None,  # noqa: ARG005
    limit: int | None = None,
    experience: Experience | None = None,
    training: Training = train_network,
) -> list[Trial]:
    """Run a study to its end, from wherever it is.

    Args:
        store: The study; every node must see its folder, unless it is kept on a server.
        share: What each trial has.
        records: Where the records are.
        tracker: Where each trial becomes a run below `study`.
        study: The study's run.
        contents: Reads the records into the memory of each node; None where trials read them from their files.
        describe: Records where a trial's run comes from.
        limit: The most devices that an elastic search uses in all; None uses all that there are.
        experience: What earlier searches have measured of elastic trials.
        training: What a worker does with a trial.
    """
    if store.remote is None:
        check_nodes_see(store.path, records.folder, alive_nodes())
    else:
        check_nodes_reach(store.remote)
    store.catch_up()
    monitor = StudyMonitor(store, share, tracker, study, describe)
    monitor.recorder.record_rest()
    monitor.can_run = lambda: has_room(_good_nodes(monitor), share)
    monitor.end_decided()
    for ray_state in store.folder.ray_states:  # of a process that was killed
        shutil.rmtree(ray_state, ignore_errors=True)
    _keep_secrets()
    with TemporaryDirectory(prefix=RAY_STATE_PREFIX, dir=store.path) as notes, monitor.console:
        if share.processes > 1 or (store.tune.allocation == "elastic" and len(alive_nodes()) > 1):
            monitor.console.say(WORKERS_LISTEN)
        try:
            while store.has_more:
                trainable = _trainable(store, share, records, contents() if contents else None, training)
                processes = Processes()
                is_elastic = store.tune.allocation == "elastic"
                elastic = _elastic(monitor, share, limit, experience, processes) if is_elastic else None
                scheduler = elastic or make_scheduler(monitor, processes)
                tuner = _tuner(trainable, share, scheduler, MonitorCallback(monitor, processes), notes)
                with _begun_in_order(share.concurrent) if store.is_population else nullcontext():
                    tuner.fit()
                if elastic is not None:
                    study.log_metrics(elastic.allocation.summary())
                if monitor.budget.given_up is not None or monitor.budget.is_reached or not monitor.again:
                    break
                monitor.again.clear()  # of a population, whose trials Ray is given at once: these are given once more
            else:
                monitor.budget.all_begun = True
            if monitor.budget.given_up is None and not monitor.budget.is_over:
                # On Ctrl-C Ray Tune stops the trials and returns as if the study were complete.
                raise KeyboardInterrupt
        finally:
            monitor.leave()
        if monitor.budget.given_up is not None:  # before, or because what ran could not be ended
            raise monitor.budget.given_up
        monitor.recorder.record_rest()
    store.keep_best()
    store.fetch_models()
    return store.trials()


def _keep_secrets() -> None:
    """Let Ray Tune not hand on the keys of this process' environment.

    It makes them part of the environment of each trial's process, which Ray writes into a log that all users of the
    machine can read. Each node has its own, from where Ray was started.
    """
    ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)


def _begun_in_order(at_once: int) -> AbstractContextManager[None]:
    """Let Ray prepare as many trials at once as can run, in this block.

    By itself it prepares all that a population has, and lets those run first for which it has found room first.
    """
    return environment({"TUNE_MAX_PENDING_TRIALS_PG": str(at_once)})  # Ray Tune has no argument for it


def _trainable(
    store: StudyStore,
    share: Share,
    records: RecordsSource,
    contents: Mapping[str, np.ndarray] | None,
    training: Training,
) -> Callable[[dict[str, Any]], None]:
    """Return what Ray runs for each trial; the records go once to each node."""
    trainable: Callable[[dict[str, Any]], None] = tune.with_parameters(
        run_worker,
        store=replace(store),  # without the journal, which the driver alone reads
        share=share,
        records=records,
        contents=contents,
        training=training,
    )
    return trainable


def _good_nodes(monitor: StudyMonitor) -> list[Node]:
    return [node for node in alive_nodes() if node.name not in monitor.bad_nodes.left_out]


def _elastic(
    monitor: StudyMonitor, share: Share, limit: int | None, experience: Experience | None, processes: Processes
) -> ElasticScheduler:
    """Return the scheduler that gives idle devices to the running trials of a study."""
    store, nodes = monitor.store, Nodes.of(alive_nodes())
    cluster = Cluster(nodes.devices(limit))

    def sizes(trial: Trial) -> tuple[int, ...]:
        """Return the numbers of devices among which the trial's batch can be divided, from its smallest share on."""
        with suppress(MisError):  # values that do not go together: it fails by itself
            params = store.params.for_trial(store.values(trial.number, trial.values), store.tune.epochs)
            fitting = sizes_for(params.train.batch_size, sum(cluster.nodes))
            possible = tuple(size for size in fitting if size >= share.replicas and params.can_be_spread(size))
            return possible or (share.replicas,)
        return (share.replicas,)

    allocation = ElasticAllocation(
        cluster,
        store.tune.epochs,
        trials=store.total - len(store.trials()),
        smallest=share.replicas,
        experience=experience,
    )

    def replicas(number: int) -> int:
        """Return over how many devices a trial is spread that is started again."""
        place = allocation.place(number)
        return share.replicas if place is None else place.devices

    monitor.replicas = replicas
    return ElasticScheduler(
        make_scheduler(monitor, processes),
        allocation,
        nodes,
        share,
        limit=limit,
        alive_nodes=lambda: _good_nodes(monitor),
        sizes=sizes,
        epochs=lambda number: len(store.checkpoints(number).history()),
        say=monitor.console.say,
    )


def _tuner(
    trainable: Callable[[dict[str, Any]], None],
    share: Share,
    scheduler: TrialScheduler,
    callback: MonitorCallback,
    ray_state: str,
) -> tune.Tuner:
    monitor = callback.monitor
    store = monitor.store
    space, searcher = make_searcher(monitor)
    return tune.Tuner(
        tune.with_resources(trainable, fixed_request(share)),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1 if searcher else 1,
            reuse_actors=True,  # 9 s for the first trial of a process, 1 s for each later one
        ),
        run_config=tune.RunConfig(
            name=store.name,
            storage_path=ray_state,
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=store.tune.max_failures),
            stop=BudgetStopper(monitor.budget),
            verbose=0,
        ),
    )
