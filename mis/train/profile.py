"""A TensorFlow profile of some steps."""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

FIRST_STEP = 3
"""Counted from 1 in this process: the first ones trace the network and fill buffers."""
STEPS = 5


class Profile(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Profiles a few steps once they are steady; TensorBoard's profile plugin shows the result."""

    def __init__(self, checkpoints: Path) -> None:
        super().__init__()
        self.into = self.folder(checkpoints)
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
        """Start once the steps are steady."""
        self.step += 1
        if self.step == FIRST_STEP:
            tf.profiler.experimental.start(str(self.into))
            self.running = True

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Stop after some."""
        if self.step == FIRST_STEP + STEPS - 1:
            self._stop()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Stop, where there were fewer."""
        self._stop()

    def _stop(self) -> None:
        if self.running:
            tf.profiler.experimental.stop()
            self.running = False
