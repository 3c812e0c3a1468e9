"""One study from its parameters to its runs in MLflow."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from mis.data.records import read_records
from mis.files import new_file, write_csv
from mis.params import Params
from mis.settings import Settings
from mis.track.base import TUNE, Run, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.names import BEST_SCORE, SELECTION
from mis.track.provenance import find_origin
from mis.train.allocate import allocate
from mis.train.cluster import cluster
from mis.tune.study import Trial, best_trial, run_study

STUDY_TAG = "mis.study"


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        name: Its name in MLflow.
        trials: Every trial, in the order of their starts.
        elapsed_s: Seconds from the first trial's submission to the end of the last.
        folder: Ray's state and the trials' models, until `remove`.
    """

    name: str
    trials: Sequence[Trial]
    elapsed_s: float
    folder: Path

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
        """Delete the trials' checkpoints; call it once the best model is elsewhere."""
        rmtree(self.folder, ignore_errors=True)


def tune(params: Params, settings: Settings) -> Study:
    """Search over the devices of the cluster, each trial a run below the study's.

    Raises:
        MisError: There are no records, a trial wants more devices than there are, or no trial
            finished an epoch.
    """
    params.check_spread("tune.devices_per_trial", params.tune.devices_per_trial)
    read_records(settings.records, params.data)  # before the cluster starts: it says at once that there are none
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = settings.checkpoints / "tune" / name
    tracker = MlflowTracker(settings)
    with cluster(settings.ray_address) as nodes:
        share = allocate(nodes, params.tune.devices_per_trial, settings.devices)
        origin = find_origin(settings, params.data)
        with tracked(tracker.start_run(TUNE, f"study-{name}", params=params.flatten(), tags={STUDY_TAG: name})) as run:
            origin.describe(run)
            run.log_metrics({"concurrent_trials": share.concurrent, "devices_per_trial": share.devices})
            begun = time.perf_counter()
            trials = run_study(
                params,
                share,
                records=settings.records,
                tracker=tracker,
                study=run,
                folder=folder,
                describe=origin.describe,
            )
            study = Study(name, trials, time.perf_counter() - begun, folder)
            _record(study, run)
    return study


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
