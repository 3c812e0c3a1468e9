"""Keras callbacks through which a worker reports how far its training is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import keras

from mis.train.logs import epoch_metrics
from mis.train.worker import Worker


@dataclass(frozen=True)
class Epoch:
    """What the chief reports of an epoch that has ended.

    Attributes:
        number: Its number, from 1.
        metrics: Its metrics, by their names in `mis.track.names`.
    """

    number: int
    metrics: Mapping[str, float]


class ReportEpochs(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Reports each epoch to the process that started the training, with its metrics by their names in MLflow."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker = worker

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Report an epoch, which Keras counts from 0."""
        self.worker.report(Epoch(epoch + 1, epoch_metrics(logs or {})))


class CountsSteps(Protocol):
    """What is told of steps: a worker, or whoever watches a trial."""

    def progress(self, steps: int = 1) -> None:
        """Note that so many steps have ended."""


class ReportSteps(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Counts every step of training and of validation as progress, so that a training that hangs is noticed."""

    async_safe = True  # it reads no logs: Keras need not wait for the device after each step

    def __init__(self, worker: CountsSteps) -> None:
        super().__init__()
        self.worker = worker

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Count a step of training."""
        self.worker.progress()

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Count a step of validation."""
        self.worker.progress()
