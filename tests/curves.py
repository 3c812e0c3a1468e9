"""Trials whose curves are known, in place of trainings: what a search does around them is real."""

import json
import math
import os
import random
import signal
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray

from mis.track.names import EPOCH_S, MODEL_PARAMETERS, TOTAL_S, TRAIN_LOSS, VAL_DICE

EPOCH_SECONDS = 0.05


def dice_after(values, number, epoch):
    """Return the Dice after an epoch: better near some values, and noisy; it depends on nothing else."""
    best = 0.9 - 0.12 * abs(math.log10(values["train.learning_rate"]) + 2)
    best -= 0.3 * abs(values.get("train.beta_1", 0.8) - 0.8)
    noise = random.Random(  # noqa: S311 - no secret
        f"{number} {epoch} {json.dumps(dict(values), sort_keys=True)}"
    )
    return max(0.0, best * (1 - math.exp(-epoch / 3)) + noise.gauss(0, 0.03))


def next_epoch(store, number, suggested, size=2, checkpoints=None):
    """Do what a training does in an epoch: write a checkpoint. Return the history."""
    checkpoints = checkpoints or store.checkpoints(number)
    history = checkpoints.history()
    epoch = len(history) + 1
    dice = dice_after(store.values(number, suggested), number, epoch)
    figures = {VAL_DICE: dice, TRAIN_LOSS: 1 - dice, EPOCH_S: EPOCH_SECONDS, MODEL_PARAMETERS: 100.0}
    history = [*history, {**figures, TOTAL_S: epoch * EPOCH_SECONDS}]
    improved = dice >= max(entry[VAL_DICE] for entry in history)
    checkpoints.write([np.full(size, float(epoch))], _write_model, history, improved=improved)
    return history


def _write_model(path):
    with zipfile.ZipFile(path, "w") as model:
        model.writestr("weights", "none")


@dataclass(frozen=True)
class Curves:
    """A training for `run_study` that takes no time.

    Attributes:
        epoch_s: Seconds of an epoch.
        size: Numbers in a checkpoint.
        hangs: A file whose absence lets a trial hang, in its second epoch and once; `halts`: it is halted instead.
        hangs_from: The number of the first trial that may.
        fails_on: A file with the names of the nodes on which every trial fails at once.
        failures: How many trials must have failed there before others have an epoch.
        raises: The number of a trial whose values are at fault.
        dies: The number of a trial whose process dies at each start.
        unreported: A file whose absence lets a trial's process die after its last epoch, which nobody has reported.
    """

    epoch_s: float = EPOCH_SECONDS
    size: int = 2
    hangs: Path | None = None
    hangs_from: int = 0
    halts: bool = False
    fails_on: Path | None = None
    failures: int = 0
    raises: int | None = None
    dies: int | None = None
    unreported: Path | None = None

    def __call__(self, task):
        """Train a trial."""
        if self.fails_on is not None:
            count = self.fails_on.with_suffix(".count")
            if ray.get_runtime_context().get_node_id() in self.fails_on.read_text():
                with count.open("a") as file:
                    file.write("failed\n")
                raise RuntimeError("the GPU has fallen off the bus")
            while self.failures and (not count.exists() or len(count.read_text().splitlines()) < self.failures):
                time.sleep(0.05)
        if task.number == self.raises:
            raise ValueError("these values are impossible")
        if task.number == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        with task.checkpoints.here() as checkpoints:
            self.train(task, checkpoints)

    def train(self, task, checkpoints):
        """Do the epochs of a trial."""
        checkpoints.set_aside_unreadable()
        history = checkpoints.history()
        while len(history) < task.store.tune.epochs:
            may_hang = self.hangs is not None and len(history) == 1 and task.number >= self.hangs_from
            if may_hang and not self.hangs.exists():
                self.hangs.touch()
                if self.halts:
                    os.kill(os.getpid(), signal.SIGSTOP)
                while True:
                    time.sleep(1)
            time.sleep(self.epoch_s)
            history = next_epoch(task.store, task.number, task.suggested, self.size, checkpoints)
            task.steps.progress()
            if self.unreported and len(history) == task.store.tune.epochs and not self.unreported.exists():
                self.unreported.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            task.report(history)
