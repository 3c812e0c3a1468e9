"""One study from its parameters to its runs in MLflow."""

import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML
from tqdm import tqdm

from mis.data.records import read_records
from mis.errors import MisError
from mis.files import new_file, write_csv
from mis.params import Params
from mis.settings import Settings
from mis.track.base import TUNE, Run, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.names import BEST_SCORE, SELECTION
from mis.track.provenance import find_origin
from mis.train.allocate import allocate
from mis.train.cluster import cluster
from mis.tune.store import StudyStore, Trial, best_trial
from mis.tune.study import STUDY_TAG, run_study

KIND_TAG = "mis.kind"


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        name: Its name in MLflow.
        trials: Every trial, in the order of their starts.
        elapsed_s: Seconds from the first trial's submission to the end of the last; those of all its starts.
        store: The study on disk, until `remove`.
    """

    name: str
    trials: Sequence[Trial]
    elapsed_s: float
    store: StudyStore

    @property
    def best(self) -> Trial:
        """The trial with the best validation Dice."""
        return best_trial(self.trials)

    def summary(self) -> dict[str, float]:
        """Return the figures of the study as a whole."""
        return {
            BEST_SCORE: self.best.best[SELECTION],
            "trials": len(self.trials),
            "trials_failed": sum(trial.state == "failed" for trial in self.trials),
            "trials_per_hour": 3600 * len(self.trials) / self.elapsed_s,
            "elapsed_s": self.elapsed_s,
        }

    def write_table(self, path: Path) -> None:
        """Write a line for each trial (CSV)."""
        write_csv(path, [trial.row() for trial in self.trials])

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


def tune(params: Params, settings: Settings, *, go_on: bool = False) -> Study:
    """Search over the devices of the cluster, each trial a run below the study's.

    Args:
        params: All parameters; `params.tune` is the study.
        settings: The machine.
        go_on: Whether to go on with a study of the same parameters and records that did not end.

    Raises:
        MisError: There are no records, a trial wants more devices than there are, or no trial
            finished an epoch.
    """
    params.check_spread("tune.devices_per_trial", params.tune.devices_per_trial)
    records = read_records(settings.records, params.data)  # before the cluster starts: it says at once of none
    folder = settings.checkpoints / "tune"
    if go_on and (store := StudyStore.find(folder, params, records.digest)) is not None:
        return _run(store, settings)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return _run(StudyStore.create(folder / name, params, records.digest), settings)


def resume(name: str, settings: Settings) -> Study:
    """Go on with a study that was interrupted or killed, with its own parameters.

    No trial that has ended is run again; those that ran go on from their checkpoints.

    Raises:
        MisError: There is no study of this name, another process runs it, or its records have changed.
    """
    store = StudyStore.open(settings.checkpoints / "tune" / name)
    records = read_records(settings.records, store.params.data)
    if records.digest != store.records:
        raise MisError(
            f"study {name} goes on with the records that it was begun with, got others in {settings.records}",
            do="begin a new one",
        )
    return _run(store, settings)


def _run(store: StudyStore, settings: Settings) -> Study:
    params, tracker, key = store.params, MlflowTracker(settings), {STUDY_TAG: store.name, KIND_TAG: "study"}
    _say(f"study {store.name}; if it is interrupted: python -m mis.tune --resume {store.name}")
    with store.held(), cluster(settings.ray_address) as nodes:
        share = allocate(nodes, params.tune.devices_per_trial, settings.devices)
        origin = find_origin(settings, params.data)
        run = tracker.find_run(TUNE, key) or tracker.start_run(
            TUNE, f"study-{store.name}", params=params.flatten(), tags=key
        )
        with tracked(run):
            origin.describe(run)
            run.log_metrics({"concurrent_trials": share.concurrent, "devices_per_trial": share.devices})
            begun = time.perf_counter()
            try:
                trials = run_study(
                    store, share, records=settings.records, tracker=tracker, study=run, describe=origin.describe
                )
            except KeyboardInterrupt:
                _say(f"what has ended is kept; go on with python -m mis.tune --resume {store.name}")
                raise
            finally:
                elapsed_s = store.add_seconds(time.perf_counter() - begun)
            study = Study(store.name, trials, elapsed_s, store)
            _record(study, run)
    return study


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _record(study: Study, run: Run) -> None:
    run.log_metrics(study.summary())
    run.set_tags({"mis.best_trial": study.best.name})
    with TemporaryDirectory() as folder:
        table, values = Path(folder) / "trials.csv", Path(folder) / "best_params.yaml"
        study.write_table(table)
        study.write_best_params(values)
        run.log_file(table)
        run.log_file(values)
    if study.best.best_model is not None:
        run.log_file(study.best.best_model, "model")
