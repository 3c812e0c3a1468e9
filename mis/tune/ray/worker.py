"""What a trial does in its worker: it trains, and reports each epoch to Ray Tune."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune

from mis.data.records.reader import read_records
from mis.train.allocate import Share
from mis.train.checkpoint import History, is_finished
from mis.tune.epochs import reports
from mis.tune.ray.messages import ATTEMPT, EPOCHS, FINISHED, NODE, NUMBER, TRIAL, VALUES, WORKED_S
from mis.tune.ray.placing import share_in_force
from mis.tune.ray.stall import noting_steps
from mis.tune.ray.task import Training, TrialTask
from mis.tune.study import messages
from mis.tune.study.store import StudyStore
from mis.tune.trial import Values


def run_worker(
    config: dict[str, Any],
    *,
    store: StudyStore,
    share: Share,
    records: Path,
    contents: Mapping[str, np.ndarray] | None,
    training: Training,
) -> None:
    """Run one trial, or go on with it.

    Args:
        config: See `mis.tune.ray.messages.config_of`.
        store: The study.
        share: What the trial has of the cluster at its start; an elastic trial may have more by now.
        records: The folder of records.
        contents: The records' contents by case, where the memory of the node has them.
        training: What is done with the trial.
    """
    begun = time.monotonic()
    handed = config[TRIAL]
    number = handed[NUMBER]
    found = len(store.checkpoints(number).history(at_least=handed[EPOCHS]))
    if not store.checkpoints(number).has_seen(handed[EPOCHS]):
        raise messages.checkpoints_not_seen(number, store.folder.trial(number).path, handed[EPOCHS], found)
    with noting_steps(store.folder.trial(number)) as steps:
        store.take_over(number, handed[VALUES])
        training(
            TrialTask(
                store,
                number,
                handed[VALUES],
                share=share_in_force(share) if store.tune.allocation == "elastic" else share,
                folder=records,
                records=replace(read_records(records), in_memory=contents),
                report=partial(_report_epoch, store, begun, _patience(store, number, handed[VALUES])),
                steps=steps,
            )
        )


def _patience(store: StudyStore, number: int, suggested: Values) -> int:
    """Return the epochs without a better Dice after which a trial ends."""
    return store.params.for_trial(store.values(number, suggested), store.tune.epochs).train.patience


def _report_epoch(store: StudyStore, begun: float, patience: int, history: History) -> None:
    tune.report(
        {
            **reports(history)[-1],
            FINISHED: is_finished(history, epochs=store.tune.epochs, patience=patience),
            ATTEMPT: f"{begun}",
            WORKED_S: time.monotonic() - begun,
            NODE: ray.get_runtime_context().get_node_id(),
        }
    )
