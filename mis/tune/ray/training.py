"""What the worker of a trial trains: in its own process, or in several where its devices are on several nodes."""

import re
from collections.abc import Callable

from mis.tune.ray.task import TrialTask


def train_network(task: TrialTask) -> None:
    """Train the network; where the memory does not suffice, again with half the batch if the study says so."""
    from mis.quiet import import_tensorflow

    import_tensorflow()
    within_memory(lambda: _train(task), task.halve_batch)


def _train(task: TrialTask) -> None:
    if task.share.processes > 1:
        from mis.tune.ray.gang_trial import train_in_gang

        train_in_gang(task)
        return
    from mis.train.callbacks import ReportSteps
    from mis.train.progress import show_message
    from mis.train.trial import run_trial

    watched = [ReportSteps(task.steps)]
    with task.checkpoints.here(say=show_message) as checkpoints:
        run_trial(task.params, task.share, task.records, checkpoints, task.report, callbacks=watched)


MEMORY_FULL = re.compile(
    r"No algorithm worked|out of memory|OOM when|CUDNN_STATUS_(ALLOC_FAILED|INTERNAL_ERROR)|CUBLAS_STATUS_ALLOC_FAILED|"
    r"CUBLAS_STATUS_NOT_INITIALIZED|[Ff]ailed to allocate"
)
"""In what TensorFlow says, under other names, where cuDNN or cuBLAS get no memory on a GPU."""


def is_memory_full(error: Exception) -> bool:
    """Return whether an error of TensorFlow says that the memory did not suffice."""
    from tensorflow.errors import InternalError, NotFoundError, ResourceExhaustedError, UnknownError

    if isinstance(error, ResourceExhaustedError):
        return True
    return (
        isinstance(error, NotFoundError | InternalError | UnknownError) and MEMORY_FULL.search(str(error)) is not None
    )


def within_memory(train: Callable[[], None], halve: Callable[[], bool]) -> None:
    """Train; where the memory does not suffice, again without the cached networks, and then with half the batch.

    Args:
        train: Trains, or goes on with it.
        halve: Halves the batch; returns whether it could.

    Raises:
        ResourceExhaustedError: The memory does not suffice for what is left.
    """
    from tensorflow.errors import OpError

    from mis.train.trial import GRAPH_CACHE

    while True:
        try:
            train()
        except OpError as error:
            if not is_memory_full(error) or (not GRAPH_CACHE.clear() and not halve()):
                raise
        else:
            return
