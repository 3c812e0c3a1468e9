"""From Keras to a tracker."""

import keras

from mis.track.base import Run
from mis.track.names import epoch_metrics


class TrackEpochs(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Log each epoch to a run, with the epoch's number, from 1, as its step."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log the epoch."""
        self.run.log_metrics(epoch_metrics(logs or {}), step=epoch + 1)
