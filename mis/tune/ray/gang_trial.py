"""A trial whose devices are on several nodes: its own process computes nothing, and watches the workers that train.

The workers stay for the later trials of this process, which have the same devices: to start them takes as long as some
epochs.
"""

from functools import partial

from ray.util import get_current_placement_group

from mis.errors import WorkerError
from mis.train.allocate import Share
from mis.train.checkpoint import History
from mis.train.gang import Gang
from mis.train.heartbeat import WorkerLostError
from mis.train.trial_worker import train_as_worker
from mis.tune.ray.task import TrialTask

OUT_OF_MEMORY = "ResourceExhaustedError"
"""In what a worker says when the memory did not suffice."""

_standing: list[Gang] = []
"""The workers of this process, if they are there."""


def train_in_gang(task: TrialTask) -> None:
    """Train a trial in several processes, or go on with it from its checkpoint.

    Raises:
        ResourceExhaustedError: The memory of a worker did not suffice.
        WorkerError: A worker was lost; the trial goes on from its checkpoint when it is started again.
    """
    params = task.params
    work = partial(train_as_worker, params=params, records=task.source, checkpoints=task.checkpoints)
    stopped: list[SystemExit] = []

    def report(history: History) -> None:
        try:
            task.report(history)
        except SystemExit as stop:  # the workers must end their training in order: later trials have them too
            stopped.append(stop)
        gang.answer(not stopped)

    gang = _gang(task.share)
    try:
        with task.steps.elsewhere():
            gang.run(work, params.distribute.heartbeat_s, params.tune.stall_s, report)
    except BaseException as error:
        _end()
        if isinstance(error, WorkerError) and OUT_OF_MEMORY in str(error):
            from tensorflow.errors import ResourceExhaustedError

            raise ResourceExhaustedError(None, None, str(error)) from error
        if isinstance(error, WorkerLostError):
            raise WorkerError(str(error)) from error
        raise
    if stopped:
        raise stopped[0]


def _gang(share: Share) -> Gang:
    if not _standing:
        group = get_current_placement_group()
        gang = Gang(share.processes, share, on_message=lambda line: None, together=True, group=group)  # noqa: ARG005
        _standing.append(gang.__enter__())
    return _standing[0]


def _end() -> None:
    while _standing:
        _standing.pop().__exit__()
