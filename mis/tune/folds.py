"""A model for each fold of the training and validation cases, and their ensemble.

The folds are the trials of a study: they run at once where there are devices, survive what a study survives, and are
runs below one run in MLflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mis.data.records.index import Records
from mis.data.records.reader import read_records
from mis.errors import MisError
from mis.model.card import read_card
from mis.params.load import Params
from mis.params.tune import FOLD
from mis.predict.ensemble import write_ensemble
from mis.settings import Settings
from mis.track.base import TUNE, Run, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.names import KIND_TAG, MODEL_PARAMETERS, STUDY_TAG, VAL_PREFIX
from mis.train.checkpoint import BEST
from mis.tune.result import StudyResult
from mis.tune.session import Draw, tune
from mis.tune.trial import Trial


@dataclass(frozen=True)
class Folds:
    """What came of the folds.

    Attributes:
        study: The study, whose trials are the folds.
        compared: The number of the fold that a search, or another single training, is validated on.
        sizes: How many cases each fold has.
    """

    study: StudyResult
    compared: int
    sizes: Sequence[int]

    @cached_property
    def trials(self) -> list[Trial]:
        """The trial of each fold, in the order of the folds."""
        return sorted(self.study.trials, key=lambda trial: int(trial.values[FOLD]))

    @property
    def history(self) -> list[dict[str, float]]:
        """Return the metrics of each epoch, as means over the folds that have had it."""
        epochs = max(trial.epochs for trial in self.trials)
        had = [[trial.history[epoch] for trial in self.trials if trial.epochs > epoch] for epoch in range(epochs)]
        return [_means(metrics) for metrics in had]

    def summary(self) -> dict[str, float]:
        """Return the validation metrics as means over all cases, each by the best epoch of its fold, and the cost.

        `fold_dice` is the Dice of one fold, that of `train.fold`: a search, or a training by itself, is validated on
        the same cases.
        """
        best = _means([trial.best for trial in self.trials], self.sizes)
        return {
            **{name.removeprefix(VAL_PREFIX): value for name, value in best.items() if name.startswith(VAL_PREFIX)},
            "fold_dice": self.trials[self.compared].score,
            "folds": len(self.trials),
            "epochs": sum(trial.epochs for trial in self.trials),
            "elapsed_s": self.study.elapsed_s,
            "parameters": sum(int(trial.last[MODEL_PARAMETERS]) for trial in self.trials),
        }

    def finish(self) -> None:
        """Mark the study as finished, and remove its checkpoints; call it once the ensemble is elsewhere."""
        self.study.finish()

    def write_model(self, path: Path) -> None:
        """Write the ensemble: the models of the folds, in their order, as one model."""
        models = [_model(self.study, trial) for trial in self.trials]
        write_ensemble(models, read_card(models[self.compared]), path)


def train_folds(params: Params, settings: Settings, *, draw: Draw) -> Folds:
    """Train a model for each of `train.folds`, or go on where that was interrupted, and log their ensemble.

    Each has the devices of one training (`distribute.workers` times `distribute.devices_per_worker`); as many are
    trained at once as there are such shares. `tune.allocation`, `tune.max_failures` and `tune.retry_oom` hold.

    Args:
        params: All parameters.
        settings: The machine.
        draw: Draws the figures of the study.

    Returns:
        What came of them. Their checkpoints stay until `Folds.finish`: until then the same call trains nothing anew.

    Raises:
        MisError: There are no records, fewer patients than folds, or a fold has no model in the end.
    """
    records = read_records(settings.records, params.data)
    sizes = [len(fold.split.val) for fold in folds_of(records, params)]
    name = f"folds-{datetime.now():%Y%m%d-%H%M%S}"
    study = tune(as_study(params), settings, draw=draw, name=name, go_on=True, how_to_go_on="the same command again")
    folds = Folds(study, params.train.fold, sizes)
    with TemporaryDirectory() as folder, tracked(run_of(study, settings)) as run:
        ensemble = Path(folder) / BEST  # in place of the best fold's model, which a study has else
        folds.write_model(ensemble)
        run.log_file(ensemble, "model")
    return folds


def folds_of(records: Records, params: Params) -> list[Records]:
    """Return the records of each of `train.folds`.

    Raises:
        MisError: There are fewer patients than folds.
    """
    folds = params.train.folds
    return [records.of_fold(folds, fold) for fold in range(folds or 0)]


def as_study(params: Params) -> Params:
    """Return the parameters of the study whose trials are the folds."""
    folds = params.train.folds or 0
    return params.override(
        {
            FOLD: 0,
            "tune.space": {FOLD: {"type": "choice", "values": list(range(folds))}},
            "tune.num_samples": folds,
            "tune.keep": folds,
            "tune.epochs": params.train.epochs,
            "tune.devices_per_trial": params.distribute.devices,
            "tune.sampler.name": "grid",
            "tune.scheduler.name": "none",
            "tune.second_objective": None,
            "tune.hours": None,
            "tune.target_dice": None,
            "tune.start.points": [],
            "tune.start.study": None,
        }
    )


def run_of(study: StudyResult, settings: Settings) -> Run:
    """Return the run of a study that has ended, to add to it.

    Raises:
        MisError: It was deleted.
    """
    run = MlflowTracker(settings).find_run(TUNE, {STUDY_TAG: study.name, KIND_TAG: "study"})
    if run is None:
        raise MisError("the run of a study must stay while its folds are trained", got=f"none of {study.name}")
    return run


def _model(study: StudyResult, trial: Trial) -> Path:
    if trial.best_model is None:
        raise MisError(
            f"every fold must have a model, got none of fold {trial.values[FOLD]}: {trial.error or trial.state}",
            do=f"the others are in MLflow, study {study.name}; train this one with --one-fold and --set "
            f"{FOLD}={trial.values[FOLD]}, or delete {study.store.path} to begin anew",
        )
    return trial.best_model


def _means(metrics: Sequence[Mapping[str, float]], weights: Sequence[int] | None = None) -> dict[str, float]:
    """Return the mean of each value that all have."""
    names = [name for name in metrics[0] if all(name in values for values in metrics)]
    return {name: float(np.average([values[name] for values in metrics], weights=weights)) for name in names}
