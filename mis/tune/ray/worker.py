"""What a trial does in its worker: it trains, and reports each epoch to Ray Tune."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
from ray import tune

from mis.data.records.reader import read_records
from mis.train.allocate import Share
from mis.train.checkpoint import History, is_finished
from mis.tune.epochs import reports
from mis.tune.ray.messages import ATTEMPT, FINISHED, MARK, NODE, NUMBER, TRIAL, VALUES, WORKED_S
from mis.tune.ray.placing import share_in_force
from mis.tune.ray.task import Training, TrialTask
from mis.tune.study.layout import TrialFolder
from mis.tune.study.population import clone, first_number
from mis.tune.study.store import StudyStore
from mis.tune.trial import Values


def run_worker(
    config: dict[str, Any],
    *,
    store: StudyStore,
    share: Share,
    records: Path,
    contents: Mapping[str, np.ndarray] | None,
    session: str,
    training: Training,
) -> None:
    """Run one trial, or go on with it.

    Args:
        config: See `mis.tune.ray.messages.config_of`; in a population, of a trial that goes on from another one: what
            that one was handed, its values changed, and a mark.
        store: The study.
        share: What the trial has of the cluster at its start; an elastic trial may have more by now.
        records: The folder of records.
        contents: The records' contents by case, where the memory of the node has them.
        session: The driver's session. In another one than before, the epochs of then are reported again: the scheduler
            that compares trials is a new one.
        training: What is done with the trial.
    """
    begun = time.monotonic()
    handed = config[TRIAL]
    number = handed[NUMBER]
    if store.is_population:
        number = first_number(store, tune.get_context().get_trial_id(), number)
    if MARK in handed:
        clone(store, number, _donor(), handed[VALUES], handed[MARK])
    elif not store.is_population:
        _report_again(store.folder.trial(number), session)
    training(
        TrialTask(
            store,
            number,
            handed[VALUES],
            share=share_in_force(share) if store.tune.allocation == "elastic" else share,
            folder=records,
            records=replace(read_records(records), in_memory=contents),
            report=partial(_report_epoch, store, number, begun, _patience(store, number, handed[VALUES])),
        )
    )


def _donor() -> int:
    """Return the number of the trial from whose weights this one goes on.

    Ray's scheduler hands over the checkpoint that the donor has reported, which has its number. The donor's
    configuration, which Ray copies, may have the number of a trial that it has itself gone on from.
    """
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        raise RuntimeError("Ray Tune lets a trial go on from another one, and gives no checkpoint of it")
    with checkpoint.as_directory() as folder:
        return int((Path(folder) / NUMBER).read_text(encoding="utf-8"))


def _report_again(folder: TrialFolder, session: str) -> None:
    """Report the epochs of earlier sessions, once in each session."""
    if not folder.session.exists() or folder.session.read_text(encoding="utf-8") != session:
        for report in reports(folder.checkpoints.history()):
            tune.report(report)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.session.write_text(session, encoding="utf-8")


def _patience(store: StudyStore, number: int, suggested: Values) -> int:
    """Return the epochs without a better Dice after which a trial ends."""
    return store.params.for_trial(store.values(number, suggested), store.tune.epochs).train.patience


def _report_epoch(store: StudyStore, number: int, begun: float, patience: int, history: History) -> None:
    newest = {
        **reports(history)[-1],
        FINISHED: is_finished(history, epochs=store.tune.epochs, patience=patience),
        ATTEMPT: f"{begun}",
        WORKED_S: time.monotonic() - begun,
        NODE: ray.get_runtime_context().get_node_id(),
    }
    if not store.is_population:
        tune.report(newest)
        return
    # Ray's scheduler lets a trial go on from another one only where that one has reported a checkpoint; this one
    # has no weights: they are in the study's folder.
    with TemporaryDirectory() as folder:
        (Path(folder) / NUMBER).write_text(str(number), encoding="utf-8")
        tune.report(newest, checkpoint=tune.Checkpoint.from_directory(folder))
