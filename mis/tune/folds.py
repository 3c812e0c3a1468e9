"""A model for each fold of the training and validation cases, and their ensemble.

The folds are the trials of a study: they run at once where there are devices, survive what a study survives, and are
runs below one run in MLflow.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from mis.data.records.index import Records
from mis.data.records.reader import check_patch, read_records
from mis.errors import MisError
from mis.files import copy_file
from mis.model.card import read_card
from mis.params.load import Params
from mis.predict.ensemble import write_ensemble
from mis.settings import Settings
from mis.track.base import TUNE, Run, tracked
from mis.track.names import FOLDS_TAG, KIND_TAG, MODEL_PARAMETERS, STUDY_TAG, VAL_PREFIX
from mis.track.recording import open_tracker, reader
from mis.train.batch_rule import for_replicas
from mis.train.checkpoint import BEST
from mis.train.progress import show_message
from mis.train.session import fingerprint
from mis.tune.result import StudyResult
from mis.tune.session import StudyContext, fetch_studies, run, studies_folder
from mis.tune.study import messages
from mis.tune.study.code import code_version, is_other_code
from mis.tune.study.store import StudyStore
from mis.tune.trial import FOLD, Trial, TrialState

STARTED_AS_ONE_OF_SEVERAL = ("TF_CONFIG", "SLURM_STEP_NUM_TASKS")
"""The variables that say so; of the second every value above 1 does."""


@dataclass(frozen=True)
class Folds:
    """What came of the folds.

    Attributes:
        study: The study, whose trials are the folds.
        sizes: How many cases each fold has.
    """

    study: StudyResult
    sizes: Sequence[int]

    @cached_property
    def trials(self) -> list[Trial]:
        """The trial of each fold, in the order of the folds."""
        return sorted(self.study.trials, key=lambda trial: int(trial.values[FOLD]))

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch that all folds have had, as means over their cases."""
        epochs = min(trial.epochs for trial in self.trials)
        return [_means([trial.history[epoch] for trial in self.trials], self.sizes) for epoch in range(epochs)]

    def summary(self) -> dict[str, object]:
        """Return the validation metrics as means over all cases, each by the best epoch of its fold, and the cost.

        `fold_dice` has the Dice of each fold, by its number as a text.
        """
        best = _means([trial.best for trial in self.trials], self.sizes)
        return {
            **{name.removeprefix(VAL_PREFIX): value for name, value in best.items() if name.startswith(VAL_PREFIX)},
            "fold_dice": {str(trial.values[FOLD]): trial.score for trial in self.trials},
            "folds": len(self.trials),
            "epochs": sum(trial.epochs for trial in self.trials),
            "elapsed_s": self.study.elapsed_s,
            "parameters": sum(int(trial.last[MODEL_PARAMETERS]) for trial in self.trials),
        }

    @property
    def model(self) -> Path:
        """The file of the ensemble, which lies in the study's folder until `finish`."""
        return self.study.store.path / BEST

    def make_ensemble(self) -> None:
        """Write the models of the folds, in their order, as one model."""
        models = [trial.best_model for trial in self.trials if trial.best_model is not None]
        card = replace(read_card(models[0]), validated_on=f"each of {len(self.trials)} folds")
        write_ensemble(models, card, self.model)

    def write_model(self, path: Path) -> None:
        """Write the ensemble."""
        copy_file(self.model, path)

    def finish(self) -> None:
        """Mark the study as finished, and remove checkpoints and ensemble; call it once that is elsewhere."""
        self.study.finish()
        self.model.unlink(missing_ok=True)


def train_folds(
    params: Params,
    settings: Settings,
    *,
    then: Callable[["Folds", Run], None] = lambda folds, run: None,  # noqa: ARG005
) -> Folds:
    """Train a model for each of `train.folds`, or go on where that was interrupted, and log their ensemble.

    Each has the devices of one training (`distribute.workers` times `distribute.devices_per_worker`); as many are
    trained at once as there are such shares. `tune.allocation` and `tune.max_failures` hold.

    Args:
        params: All parameters.
        settings: The machine.
        then: Is called with what came of them, and with their run, to add to it.

    Returns:
        What came of them. Their checkpoints stay until `Folds.finish`: until then the same call trains nothing anew.

    Raises:
        MisError: There are no records, fewer patients than folds, this process was started as one of several, MLflow's
            server does not answer, or a fold has failed; then the same call tries that one again.
    """
    _check_started_alone(os.environ)
    records = read_records(settings.records, params.data)
    check_patch(records, params.train.patch_size)
    sizes = [len(cases) for cases in records.cases_of_folds(params.train.folds or 0)]
    study_params = as_study(params)
    fetch_studies(settings)
    folder, prefix = studies_folder(settings), f"folds-{_fingerprint(params, records)}"
    with open_tracker(settings) as tracker:
        context = StudyContext(records, tracker, reader(settings), settings, draw=lambda *_: ())
        store = _find_or_create(folder, prefix, study_params, records, settings)
        study = run(store, context, study_params, retry_failed=True)
        _check_all_trained(study)
        folds = Folds(study, sizes)
        folds.make_ensemble()
        key = {STUDY_TAG: study.name, KIND_TAG: "study"}
        with tracked(tracker.open_run(TUNE, study.name, key=key)) as study_run:
            study_run.log_file(folds.model, "model")
            study_run.set_tags({FOLDS_TAG: str(len(sizes))})
            then(folds, study_run)
    return folds


def _find_or_create(folder: Path, prefix: str, params: Params, records: Records, settings: Settings) -> StudyStore:
    """Return the study of these trainings that is to go on, or a new one."""
    code = code_version(settings.workspace)
    store = StudyStore.begun_by(code, StudyStore.unfinished(folder, f"{prefix}-", say=show_message))
    if store is not None and is_other_code(store.code, code):
        show_message(messages.folds_of_other_code(store.name, store.code, code))
        store = None
    if store is None:
        name = f"{prefix}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        store = StudyStore.create(folder / name, params, records.digest, folds=True, code=code)
    return store


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
            "tune.retry_oom": False,  # all folds are trained alike
            "tune.second_objective": None,
            "tune.hours": None,
            "tune.target_dice": None,
            "tune.start.points": [],
            "tune.start.study": None,
        }
    )


def _check_started_alone(env: Mapping[str, str]) -> None:
    for name in STARTED_AS_ONE_OF_SEVERAL:
        if env.get(name, "1") != "1":
            raise MisError(
                f"train.folds must be trained by one process, which gives each fold its devices, got {name} that makes "
                "this one of several",
                do="start it once, with RAY_ADDRESS where there are several nodes; or --one-fold for one of them",
            )


def _fingerprint(params: Params, records: Records) -> str:
    """Return a name for these trainings: another one where the records, the network or the training are others."""
    rule = params.distribute
    train = for_replicas(params.train.model_copy(update={"fold": 0}), rule, rule.devices)
    return fingerprint(params.model_copy(update={"train": train}), records)


def _check_all_trained(study: StudyResult) -> None:
    for trial in study.trials:
        if trial.state is TrialState.FAILED or trial.best_model is None:
            raise MisError(
                f"every fold must be trained to its end, got fold {trial.values[FOLD]} {trial.state}: "
                f"{trial.error or 'it has no model'}",
                do="the others are kept, and the same command tries this one again from its last checkpoint",
            )
        if trial.state is TrialState.DIVERGED:
            show_message(f"fold {trial.values[FOLD]} diverged: its model is that of epoch {trial.epochs} or before")


def _means(metrics: Sequence[Mapping[str, float]], weights: Sequence[int]) -> dict[str, float]:
    """Return the mean of each value that all have."""
    names = [name for name in metrics[0] if all(name in values for values in metrics)]
    return {name: float(np.average([values[name] for values in metrics], weights=weights)) for name in names}
