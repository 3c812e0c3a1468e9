"""One trial: a training with some parameters replaced. It knows nothing of Ray."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from mis.data.records import read_records
from mis.params import Params
from mis.track.names import BEST_SCORE, SELECTION, epoch_metrics
from mis.train.allocate import Share
from mis.train.batch_rule import for_replicas
from mis.train.checkpoint import Checkpoints
from mis.train.devices import claim
from mis.train.fit import Fitted, fit
from mis.train.strategy import make_strategy

Report = Callable[[Mapping[str, float], Path], None]
"""Takes the metrics of an epoch and the checkpoint after it, a folder that the next epoch removes."""


def run_trial(params: Params, share: Share, records: Path, report: Report, checkpoint: Path | None = None) -> Fitted:
    """Train once, on this process' share of the devices.

    Args:
        params: All parameters, those of the trial in place.
        share: The devices. Every trial in a process must have as many.
        records: The folder of records.
        report: Called after each epoch.
        checkpoint: Go on from here.

    Returns:
        What came out; its checkpoints are gone: `report` had them.
    """
    devices = claim(share.devices, share.threads)
    keras.backend.clear_session()
    with tempfile.TemporaryDirectory(prefix="mis-trial-") as folder:
        checkpoints = Checkpoints(Path(folder))
        if checkpoint is not None:
            checkpoints.adopt(checkpoint)
        return fit(
            params.model,
            for_replicas(params.train, params.distribute, share.devices),
            read_records(records),
            strategy=make_strategy(devices),
            checkpoints=checkpoints,
            callbacks=[_ReportEpochs(report, checkpoints)],
        )


class _ReportEpochs(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Hands each epoch to the study, with the best score so far.

    The best so far never falls: a scheduler that compares trials by it does not stop one for a
    single bad epoch, and a stopped trial counts with what it reached.
    """

    def __init__(self, report: Report, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.report = report
        self.checkpoints = checkpoints
        self.best = max((epoch[SELECTION] for epoch in checkpoints.history()), default=float("-inf"))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Report."""
        newest = self.checkpoints.newest()
        if newest is None:
            raise RuntimeError("an epoch ended without a checkpoint")
        metrics = epoch_metrics(logs)
        self.best = max(self.best, metrics[SELECTION])
        self.report({**metrics, BEST_SCORE: self.best}, newest)
