"""A trial in processes that are started from elsewhere: after each epoch they ask whether it goes on."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mis.data.records.source import RecordsSource
from mis.params.load import Params
from mis.train.checkpoint import Checkpoints
from mis.train.cores import bind
from mis.train.progress import show_message

if TYPE_CHECKING:  # it imports TensorFlow, which the process that starts the workers does without
    from mis.train.worker import Worker


def train_as_worker(
    worker: "Worker",
    *,
    params: Params,
    records: RecordsSource,
    checkpoints: Checkpoints,
    keep_networks: int = 1,
    bound_to: Sequence[Sequence[int]] = (),
) -> None:
    """Train a trial, or go on with it from its checkpoint, as its only worker or as one of several.

    After each epoch the chief reports the metrics of all epochs so far, and all workers get the answer: whether the
    trial goes on, see `mis.train.worker.Worker.confer`.

    Args:
        worker: This process.
        params: All parameters, with the trial's values.
        records: Where the records are.
        checkpoints: The trial's checkpoints, which all workers can read.
        keep_networks: How many traced networks this process keeps for later trials at least.
        bound_to: For each worker the numbers of the devices of its node to whose cores it is bound, see
            `mis.train.cores.bind`; empty leaves all as they are.
    """
    from mis.data.records.reader import read_records
    from mis.train.callbacks import ReportSteps
    from mis.train.strategy import make_strategy
    from mis.train.trial import GRAPH_CACHE, train_trial

    if bound_to:
        bind(bound_to[worker.rank], worker.devices.threads)
    GRAPH_CACHE.capacity = max(GRAPH_CACHE.capacity, keep_networks)
    strategy = worker.strategy if worker.count > 1 else make_strategy(worker.devices)
    folder = records.on_this_node(show_message)
    with checkpoints.here(writes=worker.is_chief, say=show_message) as own:
        if worker.is_chief:
            own.set_aside_unreadable()

        def confer() -> None:
            # Only the chief knows when the checkpoint is there.
            if not worker.confer(own.history() if worker.is_chief else None):
                raise SystemExit(0)

        if worker.count > 1:
            own.history_of(worker)
        with suppress(SystemExit):
            train_trial(params, strategy, read_records(folder), own, on_epoch=confer, callbacks=[ReportSteps(worker)])
