"""Where a model comes from: a file, a run in MLflow, or MLflow's registry."""

import argparse
import re
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

from mis.errors import MisError
from mis.track.base import TUNE, RunStore
from mis.track.names import BEST_DICE, FOLDS_TAG, REGISTERED_FILE, STUDY_TAG, TRIAL_TAG

RUN_ID = re.compile(r"[0-9a-f]{32}")
REGISTERED = re.compile(r"models:/([^/@]+)(?:@|/)([^/@]+)")
"""MLflow's name of a version of a registered model, by an alias or a number."""

MODEL_FILE = "model/best.keras"
"""The model of a training, a trial or a study among the artifacts of its run."""


def find_models(
    names: Sequence[str], best: int | None, folder: Path, open_tracker: Callable[[], RunStore]
) -> list[Path]:
    """Return the files of the models that `--model` and `--best` name, see `find_model` and `best_models`.

    Raises:
        MisError: `--best` does not stand beside one model, or one of the models is not there.
    """
    check_best(names, best)
    if best is None:
        return [find_model(name, folder, open_tracker) for name in names]
    return best_models(names[0], best, folder, open_tracker)


def check_best(names: Sequence[str], best: int | None) -> None:
    """Check that `--best` stands beside one model.

    Raises:
        MisError: It does not.
    """
    if best is not None and (best < 1 or len(names) > 1):
        raise MisError(
            "--best must be at least 1 and stand beside one --model, the run of a search",
            got=f"{best} beside {len(names)}",
        )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name models to a parser."""
    parser.add_argument(
        "--model", action="append", required=True, metavar="MODEL",
        help="a model's file; MLflow's id of a run that has one; or models:/mis@champion; several are an ensemble, "
        "whose mean probability counts",
    )  # fmt: skip
    parser.add_argument(
        "--best", type=int, metavar="N",
        help="where MODEL is the run of a search: its N best trials (at most tune.keep), as an ensemble",
    )  # fmt: skip


def find_model(name: str, folder: Path, open_tracker: Callable[[], RunStore]) -> Path:
    """Return the file of a model.

    Args:
        name: A path; MLflow's id of a training's, a trial's or a study's run; `models:/NAME@ALIAS` or
            `models:/NAME/VERSION`.
        folder: Where a model from MLflow is put.
        open_tracker: Opens MLflow, where it is needed.

    Raises:
        MisError: There is no such file and no such run, or the run has no model.
    """
    if registered := REGISTERED.fullmatch(name):
        return _registered_model(open_tracker(), registered[1], registered[2], folder)
    path = Path(name)
    if path.is_file():
        return path
    if not RUN_ID.fullmatch(name):
        raise MisError(
            "--model must be a model's file, the id of a run (32 digits of 0-9, a-f) or models:/NAME@ALIAS", got=name
        )
    tracker = open_tracker()
    if tracker.read_run(name) is None:
        raise MisError(f"--model must be a file or a run in {tracker.location()}", got=name)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    found = tracker.fetch_file(name, MODEL_FILE, target)
    if found is None:
        raise MisError(
            f"the run must have a model ({MODEL_FILE} among its artifacts)",
            got=name,
            do="name the run of a training, of a study, or of one of its best trials",
        )
    return found


def best_models(study: str, count: int, folder: Path, open_tracker: Callable[[], RunStore]) -> list[Path]:
    """Return the models of the best trials of a study, the best first.

    Args:
        study: MLflow's id of the study's run.
        count: How many, at most `tune.keep` of the study.
        folder: Where they are put.
        open_tracker: Opens MLflow.

    Raises:
        MisError: There is no such run, it is no study's, or fewer of its trials have a model.
    """
    tracker = open_tracker()
    run = tracker.read_run(study)
    name = None if run is None else run.tags.get(STUDY_TAG)
    if run is None or name is None or TRIAL_TAG in run.tags or FOLDS_TAG in run.tags:
        raise MisError(f"--best takes the run of a search in {tracker.location()}", got=study)
    trials = [trial for trial in tracker.find_finished(TUNE, {STUDY_TAG: name}) if TRIAL_TAG in trial.tags]
    trials.sort(key=lambda trial: (-trial.metrics.get(BEST_DICE, -inf), trial.tags[TRIAL_TAG]))
    models = []
    for trial in trials[:count]:
        target = folder / trial.id
        target.mkdir(parents=True, exist_ok=True)
        models.append(tracker.fetch_file(trial.id, MODEL_FILE, target))
    found = [model for model in models if model is not None]
    if len(found) < count:
        raise MisError(
            f"--best must be at most {len(found)}, the trials of study {name} whose models were kept (tune.keep)",
            got=count,
        )
    return found


def _registered_model(tracker: RunStore, name: str, which: str, folder: Path) -> Path:
    version = tracker.find_model(name, which)
    if version is None:
        raise MisError(
            f"--model must be a model that is registered in {tracker.location()}",
            got=f"{which} of {name}",
            do="the stage evaluate registers mis, and the best one as mis@champion",
        )
    target = folder / f"{name}-{version.version}"
    target.mkdir(parents=True, exist_ok=True)
    found = tracker.fetch_file(version.run_id, REGISTERED_FILE, target)
    if found is None:
        raise MisError(f"the registered model must have its file {REGISTERED_FILE}", got=f"none of {which} of {name}")
    return found
