"""The progress bar of one training."""

import sys
from collections.abc import Mapping

from tqdm import tqdm

from mis.track.names import TRAIN_LOSS, VAL_DICE


class ProgressBar:
    """A bar over the epochs of a training, with the loss and the validation Dice of the last one."""

    def __init__(self, epochs: int, done: int) -> None:
        """Draw the bar.

        Args:
            epochs: How many epochs the training has at most.
            done: How many of them ended before, where it goes on from a checkpoint.
        """
        self.done = done
        self.bar = tqdm(total=epochs, initial=done, desc="train", unit="epoch", file=sys.stderr)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Move the bar to an epoch, counted from 1; epochs that had ended before are not shown again."""
        if epoch <= self.done:
            return
        values = {"loss": metrics[TRAIN_LOSS], VAL_DICE: metrics[VAL_DICE]}
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        self.bar.n = epoch
        self.bar.refresh()


def show_message(line: str) -> None:
    """Print a line above the bar."""
    tqdm.write(line, file=sys.stderr)
