"""One trial: a training with some parameters replaced. It knows nothing of Ray."""

from collections.abc import Callable

import keras

from mis.data.records.index import Records
from mis.params.load import Params
from mis.train.allocate import Share
from mis.train.batch_rule import for_replicas
from mis.train.checkpoint import Checkpoints, History
from mis.train.devices import claim
from mis.train.fit import Fitted, fit
from mis.train.graph_cache import Networks
from mis.train.strategy import make_strategy

NETWORKS = Networks()
"""Of this process: TensorFlow's devices and strategy are chosen once for all its trials."""

Report = Callable[[History], None]
"""Takes the metrics of all epochs so far, after each; the checkpoint has been written."""


def run_trial(
    params: Params,
    share: Share,
    records: Records,
    checkpoints: Checkpoints,
    report: Report,
    *,
    networks: Networks = NETWORKS,
) -> Fitted:
    """Train once, or go on from the checkpoints, on this process' share of the devices.

    Args:
        params: All parameters, those of the trial in place.
        share: The devices. Every trial in a process must have as many.
        records: The cases and their split.
        checkpoints: Where the state is kept after each epoch.
        report: Called after each epoch.
        networks: Those that this process has traced before.
    """
    devices = claim(share.devices, share.threads, part=share.part)
    train = for_replicas(params.train, params.distribute, share.devices)
    told = _ReportEpochs(report, checkpoints)
    with networks.lent(params.model, train, records):
        fitted = fit(
            params.model,
            train,
            records,
            strategy=make_strategy(devices),
            checkpoints=checkpoints,
            callbacks=[told],
            compiled=networks.compile,
        )
    told.end()
    return fitted


class _ReportEpochs(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Tells of each epoch; what the checkpoint has, so that nothing is told that would be lost."""

    def __init__(self, report: Report, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.report = report
        self.checkpoints = checkpoints
        self.stopped: SystemExit | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Tell, and end the training where the answer is that the trial is stopped."""
        try:
            self.report(self.checkpoints.history())
        except SystemExit as stopped:
            # Ray's way to stop a trial. Keras has to end its training: the network is used again.
            self.stopped = stopped
            self.model.stop_training = True

    def end(self) -> None:
        """End the trial, if it was stopped."""
        if self.stopped is not None:
            raise self.stopped
