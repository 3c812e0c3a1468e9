"""What the worker of a trial is to do."""

from collections.abc import Callable
from dataclasses import dataclass

from mis.data.records.index import Records
from mis.data.records.source import RecordsSource
from mis.errors import MisError
from mis.params.load import Params
from mis.train.allocate import Share
from mis.train.checkpoint import Checkpoints, History
from mis.tune.ray.errors import ValuesError
from mis.tune.ray.stall import Steps
from mis.tune.study.store import StudyStore
from mis.tune.trial import Values


@dataclass(frozen=True)
class TrialTask:
    """One start of a trial: what is to be trained, where, and who is told.

    Attributes:
        store: The study.
        number: The trial's number.
        suggested: The values that it was begun with.
        share: Its devices.
        source: Where the records are, for other processes that train the trial.
        records: The records, their contents in memory where the node has them.
        report: Takes the metrics of all epochs so far, after each epoch; raises SystemExit to end the trial.
        steps: Is told of each step, so that a trial that hangs is noticed.
    """

    store: StudyStore
    number: int
    suggested: Values
    share: Share
    source: RecordsSource
    records: Records
    report: Callable[[History], None]
    steps: Steps

    @property
    def params(self) -> Params:
        """All parameters, with the values that the trial has now.

        Raises:
            ValuesError: The values do not go together, or not with its devices.
        """
        values = self.store.values(self.number, self.suggested)
        try:
            params = self.store.params.for_trial(values, self.store.tune.epochs)
            params.check_spread("tune.devices_per_trial", self.share.replicas)
        except MisError as error:
            raise ValuesError(str(error)) from None
        return params

    @property
    def checkpoints(self) -> Checkpoints:
        """The trial's checkpoints."""
        return self.store.checkpoints(self.number)

    def halve_batch(self) -> bool:
        """Give the trial half its batch from now on; return whether that is wanted, and possible."""
        return self.store.halve_batch(self.number, self.suggested, self.share.replicas)


Training = Callable[[TrialTask], None]
"""Trains a trial to its end, or goes on with it from its checkpoint."""
