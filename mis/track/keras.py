"""From Keras to whoever watches."""

from collections.abc import Callable, Mapping

import keras

from mis.track.names import epoch_metrics


class WatchEpochs(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Hand on each epoch's number, from 1, and its metrics by their names in MLflow."""

    def __init__(self, watch: Callable[[int, Mapping[str, float]], None]) -> None:
        super().__init__()
        self.watch = watch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Hand it on."""
        self.watch(epoch + 1, epoch_metrics(logs or {}))
