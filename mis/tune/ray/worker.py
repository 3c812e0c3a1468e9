"""What a trial does in its worker: it trains, and reports each epoch to Ray Tune."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray import tune

from mis.data.records.reader import read_records
from mis.data.records.source import RecordsSource
from mis.train.allocate import Share
from mis.train.checkpoint import History, is_finished
from mis.train.progress import show_message
from mis.tune.epochs import reports
from mis.tune.ray.messages import ATTEMPT, EPOCHS, FINISHED, FIRST, NODE, NUMBER, TRIAL, VALUES, WORKED_S
from mis.tune.ray.placing import share_in_force
from mis.tune.ray.stall import noting_steps
from mis.tune.ray.task import Training, TrialTask
from mis.tune.study import messages
from mis.tune.study.kept import for_worker
from mis.tune.study.store import StudyStore
from mis.tune.trial import Values


def run_worker(
    config: dict[str, Any],
    *,
    store: StudyStore,
    share: Share,
    records: RecordsSource,
    contents: Mapping[str, np.ndarray] | None,
    training: Training,
) -> None:
    """Run one trial, or go on with it.

    Args:
        config: See `mis.tune.ray.messages.config_of`.
        store: The study.
        share: What the trial has of the cluster at its start; an elastic trial may have more by now.
        records: Where the records are.
        contents: The records' contents by case, where the memory of the node has them.
        training: What is done with the trial.
    """
    begun = time.monotonic()
    handed = config[TRIAL]
    number = handed[NUMBER]
    checkpoints = store.checkpoints(number)
    if not checkpoints.may_lack_epochs:
        found = len(checkpoints.history(at_least=handed[EPOCHS]))
        if not checkpoints.has_seen(handed[EPOCHS]):
            raise messages.checkpoints_not_seen(number, store.folder.trial(number).path, handed[EPOCHS], found)
    with (
        for_worker(store, number, handed[FIRST], show_message) as own,
        noting_steps(own.folder.trial(number)) as steps,
    ):
        with steps.elsewhere():  # what is fetched from a server may take longer than a step
            own.take_over(number, handed[VALUES])
            folder = records.on_this_node(show_message, index_only=contents is not None)
        patience, reported = _patience(store, number, handed[VALUES]), list[History]()

        def report(history: History) -> None:
            reported.append(history)
            _report_epoch(store, begun, patience, history)

        training(
            TrialTask(
                own,
                number,
                handed[VALUES],
                share=share_in_force(share) if store.tune.allocation == "elastic" else share,
                source=records,
                records=replace(read_records(folder, complete=contents is None), in_memory=contents),
                report=report,
                steps=steps,
            )
        )
        if not reported and (history := own.checkpoints(number).history()):
            report(history)  # its last epoch was trained by a process that did not live to report it


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
