"""One study from its parameters to its runs in MLflow."""

import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import psutil
from ruamel.yaml import YAML
from tqdm import tqdm

from mis.data.records.index import Records, check_patch, read_contents, read_records, size_bytes
from mis.files import new_file, write_csv
from mis.params.load import Params
from mis.params.tune import TuneParams
from mis.settings import Settings
from mis.track.base import TUNE, Run, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.names import BEST_DICE, VAL_DICE
from mis.track.provenance import find_origin
from mis.train.allocate import Node, Share, allocate
from mis.train.cluster import cluster
from mis.tune.history import RECORDS_TAG, starting_points
from mis.tune.ray.callback import STUDY_TAG, TRIAL_TAG
from mis.tune.ray.driver import run_study
from mis.tune.study.store import StudyStore, Trial, best_trial

KIND_TAG = "mis.kind"

Draw = Callable[[optuna.Study, Path], Sequence[Path]]
"""Draws a study's figures into a folder, and returns their files: `mis.report.study.figures.write_figures`."""

SHARED_USABLE = 0.8
"""Of the memory that a node's processes share, what the data may take."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is looked at, nothing is written
"""Where Linux has it; Ray would take the disk where it is too small."""


@dataclass(frozen=True)
class Resources:
    """What the trials of a study have of a cluster.

    Attributes:
        nodes: How many nodes there are.
        share: What each trial has.
        in_memory: Whether the records are in the memory of each node.
    """

    nodes: int
    share: Share
    in_memory: bool


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        name: Its name in MLflow.
        trials: Every trial, in the order of their starts.
        elapsed_s: Seconds from the first trial's submission to the end of the last; those of all its starts.
        store: The study on disk, until `remove`.
        concurrent: How many trials ran at once.
    """

    name: str
    trials: Sequence[Trial]
    elapsed_s: float
    store: StudyStore
    concurrent: int

    @property
    def best(self) -> Trial:
        """The trial with the best validation Dice."""
        return best_trial(self.trials)

    def summary(self) -> dict[str, float]:
        """Return the figures of the study as a whole."""
        return {
            BEST_DICE: self.best.best[VAL_DICE],
            "trials": len(self.trials),
            "trials_failed": sum(trial.state == "failed" for trial in self.trials),
            "trials_per_hour": 3600 * len(self.trials) / self.elapsed_s,
            "elapsed_s": self.elapsed_s,
            "device_hours": self.store.tune.devices_per_trial * self._busy_s / 3600,
            "device_utilisation": self._busy_s / (self.concurrent * self.elapsed_s),
        }

    @property
    def _busy_s(self) -> float:
        """Seconds that trials ran, added up: set-up is among them, waiting for a place is not."""
        return sum(trial.elapsed_s for trial in self.trials)

    def write_table(self, path: Path) -> None:
        """Write a line for each trial (CSV)."""
        front = self.store.pareto_front()
        rows = [trial.row() for trial in self.trials]
        if front:
            rows = [{**row, "pareto": row["trial"] in front} for row in rows]
        write_csv(path, rows)

    def write_histories(self, path: Path) -> None:
        """Write a line for each epoch of each trial (CSV)."""
        rows = [
            {"trial": trial.name, "epoch": number, **epoch}
            for trial in self.trials
            for number, epoch in enumerate(trial.history, start=1)
        ]
        write_csv(path, rows)

    def write_best_params(self, path: Path) -> None:
        """Write the best trial's values as YAML, ready for params.yaml or `--set`."""
        with new_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            YAML().dump(dict(self.best.values), file)

    def remove(self) -> None:
        """Delete the study's folder; call it once the best model is elsewhere."""
        self.store.remove()


def tune(params: Params, settings: Settings, *, draw: Draw, go_on: bool = False) -> Study:
    """Search over the devices of the cluster, each trial a run below the study's.

    Args:
        params: All parameters; `params.tune` is the study.
        settings: The machine.
        draw: Draws the study's figures, which its run has as artifacts.
        go_on: Whether to go on with a study of the same parameters and records that did not end.

    Raises:
        MisError: There are no records, a trial wants more devices than there are, there is no such study
            to start from, or no trial finished an epoch.
    """
    params.check_spread("tune.devices_per_trial", params.tune.devices)
    records = read_records(settings.records, params.data)  # before the cluster starts: it says at once of none
    check_patch(records, params.train.patch_size)
    tracker, folder = MlflowTracker(settings), settings.checkpoints / "tune"
    if go_on and (store := StudyStore.find(folder, params, records.digest)) is not None:
        return run(store, records, tracker, settings, draw=draw)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    starts = starting_points(params, tracker)
    return run(StudyStore.create(folder / name, params, records.digest, starts), records, tracker, settings, draw=draw)


def run(
    store: StudyStore,
    records: Records,
    tracker: MlflowTracker,
    settings: Settings,
    *,
    draw: Draw,
    params: Params | None = None,
) -> Study:
    """Run a study that is on disk to its end, from wherever it is; `params` is it with another budget."""
    with store.held():
        _say(f"study {store.name}; if it is interrupted: python -m mis.tune --resume {store.name}")
        store = store if params is None else store.with_params(params)
        ended = len(store.trials())
        if begun := ended + len(store.interrupted()):
            _say(f"it goes on: {ended} of {store.total} trials have ended, {begun} were begun")
        with resources(store.tune, size_bytes(records), settings) as own:
            return _run_on(own, store, records, tracker, settings, draw=draw)


def _run_on(
    resources: Resources,
    store: StudyStore,
    records: Records,
    tracker: MlflowTracker,
    settings: Settings,
    *,
    draw: Draw,
) -> Study:
    params, share, key = store.params, resources.share, {STUDY_TAG: store.name, KIND_TAG: "study"}
    origin = find_origin(settings, params.data, records.data_hash, records.left_out)

    def describe(run: Run) -> None:
        origin.describe(run)
        run.set_tags({RECORDS_TAG: records.digest})

    own = tracker.find_run(TUNE, key) or tracker.start_run(TUNE, f"study-{store.name}", tags=key)
    with tracked(own):
        describe(own)
        own.log_params(params.flatten())
        own.log_metrics({"concurrent_trials": share.concurrent, "devices_per_trial": params.tune.devices_per_trial})
        own.log_metrics({"data_in_memory_bytes": size_bytes(records) if resources.in_memory else 0})
        try:
            trials = run_study(
                store,
                share,
                records=settings.records,
                contents=partial(read_contents, records) if resources.in_memory else None,
                tracker=tracker,
                study=own,
                describe=describe,
            )
        except KeyboardInterrupt:
            _say(f"what has ended is kept; go on with python -m mis.tune --resume {store.name}")
            raise
        study = Study(store.name, trials, store.seconds, store, share.concurrent)
        _record(study, own, tracker, draw)
    return study


@contextmanager
def resources(own: TuneParams, size: int, settings: Settings) -> Iterator[Resources]:
    """Yield what the trials of a study have of the cluster, or of this machine, while its records have so many bytes.

    Raises:
        MisError: A trial wants more devices than there are, or no cluster answers.
    """
    with cluster(settings.ray_address, shared_bytes=shared_room(size, own.data_memory_share)) as nodes:
        share = allocate(nodes, own.devices_per_trial, settings.devices)
        yield Resources(len(nodes), share, in_memory=fits_in_memory(size, nodes, own.data_memory_share))


def shared_room(size: int, share: float) -> int:
    """Return how much memory a local cluster must share between its processes for so many bytes of records.

    It is none where they do not fit the share of the memory that is free.
    """
    free = psutil.virtual_memory().available
    if SHARED_MEMORY.is_dir():
        free = min(free, shutil.disk_usage(SHARED_MEMORY).free)
    return ceil(size / SHARED_USABLE) if size <= share * free else 0


def fits_in_memory(size: int, nodes: Sequence[Node], share: float) -> bool:
    """Return whether so many bytes fit a share of each node's memory, and the part of it that its processes share.

    >>> fits_in_memory(5, [Node(cpus=8, gpus=1, memory_bytes=100, shared_bytes=20)], share=0.1)
    True
    >>> fits_in_memory(5, [Node(cpus=8, gpus=1, memory_bytes=100, shared_bytes=4)], share=0.1)
    False
    """
    return all(size <= share * node.memory_bytes and size <= SHARED_USABLE * node.shared_bytes for node in nodes)


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _record(study: Study, run: Run, tracker: MlflowTracker, draw: Draw) -> None:
    run.log_metrics(study.summary())
    run.set_tags({"mis.best_trial": study.best.name})
    if front := study.store.pareto_front():
        run.set_tags({"mis.pareto_front": ", ".join(front)})
    with TemporaryDirectory() as folder:
        table, values = Path(folder) / "trials.csv", Path(folder) / "best_params.yaml"
        study.write_table(table)
        study.write_best_params(values)
        run.log_file(table)
        run.log_file(values)
        for figure in draw(study.store.study, Path(folder) / "figures"):
            run.log_file(figure, "figures")
    for trial in study.trials:
        if trial.best_model is not None:
            child = tracker.find_run(TUNE, {STUDY_TAG: study.name, TRIAL_TAG: trial.name}, go_on=False)
            if child is not None:
                child.log_file(trial.best_model, "model")
    if study.best.best_model is not None:
        run.log_file(study.best.best_model, "model")
