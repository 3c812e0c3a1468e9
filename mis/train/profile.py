"""A TensorFlow profile of some steps."""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

FIRST_STEP = 3
"""The first profiled step of this process, counted from 1: those before trace the network and fill buffers."""

STEPS = 5
"""How many steps are profiled."""


class ProfileSteps(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Writes a TensorFlow profile of a few steps, which TensorBoard's profile plugin shows."""

    def __init__(self, checkpoints: Path) -> None:
        super().__init__()
        self.target = self.folder(checkpoints)
        self.step = 0
        self.running = False

    @staticmethod
    def folder(checkpoints: Path) -> Path:
        """Return where the profile of the training with these checkpoints is written."""
        return checkpoints / "profile"

    @classmethod
    def files(cls, checkpoints: Path) -> Sequence[Path]:
        """Return the files of the profile."""
        return sorted(path for path in cls.folder(checkpoints).rglob("*") if path.is_file())

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the profiler at `FIRST_STEP`."""
        self.step += 1
        if self.step == FIRST_STEP:
            tf.profiler.experimental.start(str(self.target))
            self.running = True

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Stop it after `STEPS` steps."""
        if self.step == FIRST_STEP + STEPS - 1:
            self._stop()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Stop it where the training had fewer steps."""
        self._stop()

    def _stop(self) -> None:
        if self.running:
            tf.profiler.experimental.stop()
            self.running = False
