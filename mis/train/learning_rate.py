"""The learning rate of each step: it rises linearly, and then stays or falls."""

from math import cos, pi

import keras

from mis.params.train import TrainParams

POLY_EXPONENT = 0.9
"""Of the polynomial decay (nnU-Net, DeepLab)."""


def learning_rate_at(step: int, params: TrainParams, steps_per_epoch: int) -> float:
    """Return the learning rate of a step.

    Args:
        step: The number of the step in the training, from 0.
        params: The full learning rate, the warm-up, the decay, and the epochs at whose end it has fallen.
        steps_per_epoch: Steps of an epoch.
    """
    warmup = params.warmup_epochs * steps_per_epoch
    if step < warmup:
        return params.learning_rate * (step + 1) / warmup
    if params.learning_rate_decay == "none":
        return params.learning_rate
    progress = min(1.0, (step - warmup) / max(1, params.epochs * steps_per_epoch - warmup))
    if params.learning_rate_decay == "poly":
        return params.learning_rate * float((1 - progress) ** POLY_EXPONENT)
    return params.learning_rate * (1 + cos(pi * progress)) / 2


class SetLearningRate(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Sets the learning rate before each step.

    It is a variable of the optimizer and no part of the graph, so that trainings with unlike rates share a traced
    network.
    """

    async_safe = True  # it reads no logs: Keras need not wait for the device after each step

    def __init__(self, params: TrainParams, steps_per_epoch: int) -> None:
        super().__init__()
        self.train_params = params
        self.steps_per_epoch = steps_per_epoch
        self.epoch = 0
        self.rate: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Note which epoch it is, from 0."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Set the learning rate where it differs from that of the step before."""
        rate = learning_rate_at(self.epoch * self.steps_per_epoch + batch, self.train_params, self.steps_per_epoch)
        if rate != self.rate:
            self.rate = self.model.optimizer.learning_rate = rate
