"""One training, whoever watches it and however it is spread."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from mis.data.dataset import case_batches, steps_per_epoch, training_batches
from mis.data.records import Records
from mis.model.losses import SoftDiceLoss
from mis.model.metrics import segmentation_metrics
from mis.model.unet import build_unet
from mis.params import ModelParams, TrainParams
from mis.track.names import epoch_metrics
from mis.train.checkpoint import BEST, Checkpoints, History, best_epoch, is_finished, restore


@dataclass(frozen=True)
class Fitted:
    """What a training came to.

    Attributes:
        history: The metrics of each epoch.
        parameters: Trainable weights of the model.
        checkpoints: Where its state and best model lie until they are removed.
    """

    history: History
    parameters: int
    checkpoints: Checkpoints

    @property
    def best_model(self) -> Path:
        """The file of the model after its best epoch, in Keras' own format."""
        newest = self.checkpoints.newest()
        if newest is None:
            raise FileNotFoundError(f"the checkpoints of this training were removed from {self.checkpoints.folder}")
        return newest / BEST

    @property
    def best_epoch(self) -> int:
        """The number, from 1, of the epoch with the best validation Dice."""
        return best_epoch(self.history)

    @property
    def best(self) -> dict[str, float]:
        """The metrics of the best epoch."""
        return self.history[self.best_epoch - 1]

    @property
    def elapsed_s(self) -> float:
        """Seconds of all epochs, validation and checkpoints included, set-up not."""
        return self.history[-1]["time/total_s"]

    def summary(self) -> dict[str, float]:
        """Return the best validation figures, when they came, and what they took."""
        validation = {name.removeprefix("val/"): value for name, value in self.best.items() if name.startswith("val/")}
        return validation | {
            "epoch": self.best_epoch,
            "epochs": len(self.history),
            "elapsed_s": self.elapsed_s,
            "parameters": self.parameters,
        }


def fit(
    model_params: ModelParams,
    params: TrainParams,
    records: Records,
    *,
    strategy: tf.distribute.Strategy,
    checkpoints: Checkpoints,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Fitted:
    """Train a U-Net, or go on with the training that `checkpoints` holds.

    The result depends on the parameters and the records alone, not on the number of devices (up
    to rounding) nor on how often the training was interrupted.

    Args:
        model_params: The network.
        params: The training.
        records: The cases and their split.
        strategy: How it is spread over devices.
        checkpoints: Where the state is kept after each epoch.
        callbacks: Who watches: each gets `epoch_s` and `total_s` in the logs beside Keras' own
            entries, after the checkpoint is written.
    """
    keras.utils.set_random_seed(params.seed)
    with strategy.scope():
        model = compile_unet(model_params, params, records)
    newest = checkpoints.newest()
    history = restore(model, newest) if newest else []
    if not is_finished(history, epochs=params.epochs, patience=params.patience):
        cases = records.split.train
        model.fit(
            training_batches(records, cases, params.batch_size, seed=params.seed, first_epoch=len(history)),
            steps_per_epoch=steps_per_epoch(len(cases), params.batch_size),
            validation_data=case_batches(records, records.split.val, params.batch_size),
            initial_epoch=len(history),
            epochs=params.epochs,
            callbacks=[_Keep(history, checkpoints, params), *callbacks],
            shuffle=False,
            verbose=0,
        )
    return Fitted(history, sum(int(tf.size(weight)) for weight in model.trainable_variables), checkpoints)


def compile_unet(model_params: ModelParams, params: TrainParams, records: Records) -> keras.Model:
    """Build and compile the network; call it in the strategy's scope."""
    model = build_unet(model_params, len(records.modalities), len(records.regions))
    optimizer = keras.optimizers.Adam(
        params.learning_rate, beta_1=params.beta_1, beta_2=params.beta_2, amsgrad=params.amsgrad
    )
    metrics = segmentation_metrics(records.regions, params.dice_smooth)
    model.compile(optimizer=optimizer, loss=SoftDiceLoss(params.dice_smooth), weighted_metrics=metrics)
    # Made while tracing, the optimizer's variables cost 2.5 s more and leak 57 MB a model, not 19.
    optimizer.build(model.trainable_variables)
    return model


class _Keep(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Times each epoch, writes the checkpoint, stops early. First in line: others see what it adds."""

    def __init__(self, history: History, checkpoints: Checkpoints, params: TrainParams) -> None:
        super().__init__()
        self.history = history
        self.checkpoints = checkpoints
        self.train_params = params
        self.epoch_begin = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self.epoch_begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Extend the history and the logs, and write the checkpoint."""
        before = self.history[-1]["time/total_s"] if self.history else 0.0
        logs["epoch_s"] = time.perf_counter() - self.epoch_begin
        logs["total_s"] = before + logs["epoch_s"]
        self.history.append(epoch_metrics(logs))
        self.checkpoints.save(self.model, self.history, improved=best_epoch(self.history) == len(self.history))
        limits = self.train_params
        self.model.stop_training = is_finished(self.history, epochs=limits.epochs, patience=limits.patience)
