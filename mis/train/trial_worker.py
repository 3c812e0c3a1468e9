"""A trial in processes that are started from elsewhere: after each epoch they ask whether it goes on."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mis.params.load import Params
from mis.train.checkpoint import Checkpoints

if TYPE_CHECKING:  # it imports TensorFlow, which the process that starts the workers does without
    from mis.train.worker import Worker


def train_as_worker(
    worker: "Worker", *, params: Params, records: Path, checkpoints: Checkpoints, keep_networks: int = 1
) -> None:
    """Train a trial, or go on with it from its checkpoint, as its only worker or as one of several.

    After each epoch the chief reports the metrics of all epochs so far, and all workers get the answer: whether the
    trial goes on, see `mis.train.worker.Worker.confer`.

    Args:
        worker: This process.
        params: All parameters, with the trial's values.
        records: The folder of records.
        checkpoints: The trial's checkpoints, which all workers can read.
        keep_networks: How many traced networks this process keeps for later trials at least.
    """
    from mis.data.records.reader import read_records
    from mis.train.callbacks import ReportSteps
    from mis.train.strategy import make_strategy
    from mis.train.trial import GRAPH_CACHE, train_trial

    GRAPH_CACHE.capacity = max(GRAPH_CACHE.capacity, keep_networks)
    own = replace(checkpoints, writes=worker.is_chief)
    strategy = worker.strategy if worker.count > 1 else make_strategy(worker.devices)

    def confer() -> None:
        # Only the chief knows when the checkpoint is there.
        if not worker.confer(own.history() if worker.is_chief else None):
            raise SystemExit(0)

    with suppress(SystemExit):
        train_trial(params, strategy, read_records(records), own, on_epoch=confer, callbacks=[ReportSteps(worker)])
