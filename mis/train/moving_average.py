"""The moving average of a training's weights, by which it is validated and saved."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np


class UseMovingAverage(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Exchanges the weights for the optimizer's moving average of them while a training is validated.

    Keras' own `SwapEMAWeights` exchanges them by sums and differences, which rounds them: a training that goes on from
    a checkpoint would not be that which was never interrupted, and where one worker alone writes the model, it would
    have other weights than the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: Sequence[np.ndarray] | None = None

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Put the average in the weights' place."""
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # in float16 it is wrapped
        self.weights = [keras.ops.convert_to_numpy(variable) for variable in self.model.trainable_variables]
        averages = [keras.ops.convert_to_numpy(average) for average in optimizer._model_variables_moving_average]
        self._assign(averages)

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Put the weights back, bit by bit."""
        if self.weights is not None:
            self._assign(self.weights)
        self.weights = None

    def _assign(self, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(self.model.trainable_variables, values, strict=True):
            variable.assign(value)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the average in the weights' place while the block runs."""
        self.on_test_begin()
        try:
            yield
        finally:
            self.on_test_end()
