"""One training, over whatever devices its strategy has."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import keras
import tensorflow as tf

from mis.data.pipeline.dataset import Part, case_batches, damage_as_error, steps_per_epoch, training_batches
from mis.data.records.index import Records
from mis.model.losses import SoftDiceLoss
from mis.model.metrics import segmentation_metrics
from mis.model.unet import build_unet
from mis.params.model import ModelParams
from mis.params.train import TrainParams
from mis.track.names import TOTAL_S, VAL_PREFIX
from mis.train import messages
from mis.train.checkpoint import BEST, Checkpoints, History, best_epoch, is_finished, restore
from mis.train.logs import epoch_metrics
from mis.train.teardown import untuned_buffers
from mis.train.timing import TimeSteps

CompileNetwork = Callable[[ModelParams, TrainParams, Records], keras.Model]
"""Returns a compiled network with the initial weights of its seed."""


@dataclass(frozen=True)
class Fitted:
    """The result of a training.

    Attributes:
        history: The metrics of each epoch.
        parameters: Trainable weights of the model.
        checkpoints: Its checkpoints, which have its best model until they are removed.
        run_id: The id of its run in MLflow; None where none was made.
    """

    history: History
    parameters: int
    checkpoints: Checkpoints
    run_id: str | None = None

    @property
    def best_model(self) -> Path:
        """The file of the model after its best epoch, in Keras' format."""
        newest = self.checkpoints.newest()
        if newest is None:
            raise messages.checkpoints_removed(self.checkpoints.folder)
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
        return self.history[-1][TOTAL_S]

    def summary(self) -> dict[str, float]:
        """Return the best epoch's validation metrics without their prefix, its number, and the training's cost."""
        validation = {
            name.removeprefix(VAL_PREFIX): value for name, value in self.best.items() if name.startswith(VAL_PREFIX)
        }
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
    compile_network: CompileNetwork | None = None,
) -> Fitted:
    """Train a U-Net, or go on with the training that `checkpoints` holds.

    The result depends on the parameters and the records alone, not on the number of devices (up
    to rounding) nor on how often the training was interrupted.

    Args:
        model_params: The network.
        params: The training; its batch is that of all devices together.
        records: The cases and their split.
        strategy: TensorFlow's strategy over the devices. Where it has several workers, each calls this function.
        checkpoints: The checkpoints of the training, written after each epoch; all workers read the same files.
        callbacks: Called after the checkpoint of an epoch is written; their logs have the entries of `TimeSteps`,
            `total_s` and `parameters` beside those of Keras.
        compile_network: Makes the compiled network; `compile_unet` by default.
    """
    with strategy.scope():
        model = (compile_network or compile_unet)(model_params, params, records)
    newest = checkpoints.newest()
    history = restore(model, newest) if newest else []
    if not params.warmup_epochs:  # a search may have changed the learning rate since the checkpoint was written
        model.optimizer.learning_rate = params.learning_rate
    if not is_finished(history, epochs=params.epochs, patience=params.patience):
        cases, val = records.split.train, records.split.val
        batch_size, first = params.batch_size, len(history)
        steps = steps_per_epoch(len(cases), batch_size)
        with untuned_buffers(), damage_as_error(records):
            model.fit(
                strategy.distribute_datasets_from_function(
                    lambda context: training_batches(records, cases, params, first_epoch=first, part=Part.of(context))
                ),
                steps_per_epoch=steps,
                validation_data=strategy.distribute_datasets_from_function(
                    lambda context: case_batches(records, val, batch_size, passes=None, part=Part.of(context))
                ),
                validation_steps=steps_per_epoch(len(val), batch_size),
                initial_epoch=first,
                epochs=params.epochs,
                callbacks=[TimeSteps(len(cases), steps), SaveCheckpoints(history, checkpoints, params), *callbacks],
                shuffle=False,
                verbose=0,
            )
    return Fitted(history, count_parameters(model), checkpoints)


def count_parameters(model: keras.Model) -> int:
    """Return how many trainable weights a model has."""
    return sum(prod(weight.shape) for weight in model.trainable_variables)


def compile_unet(model_params: ModelParams, params: TrainParams, records: Records) -> keras.Model:
    """Build and compile the network, with the initial weights of its seed; call it in the strategy's scope.

    Raises:
        MisError: The device cannot compute in this precision.
    """
    if params.precision == "mixed_float16" and not tf.config.list_logical_devices("GPU"):
        raise messages.float16_without_gpu()
    keras.utils.set_random_seed(params.seed)
    with precision(params.precision):
        model = build_unet(model_params, len(records.modalities), len(records.regions))
    steps = params.warmup_epochs * steps_per_epoch(len(records.split.train), params.batch_size)
    optimizer = keras.optimizers.Adam(
        learning_rate(params.learning_rate, steps), beta_1=params.beta_1, beta_2=params.beta_2, amsgrad=params.amsgrad
    )
    model.compile(
        optimizer=optimizer,
        loss=SoftDiceLoss(params.dice_smooth),
        weighted_metrics=segmentation_metrics(records.regions, params.dice_smooth),
        jit_compile=params.jit_compile,
    )
    # Made while tracing, the optimizer's variables cost 2.5 s more and leak 57 MB a model, not 19.
    model.optimizer.build(model.trainable_variables)
    return model


def learning_rate(full: float, warmup_steps: int) -> "float | keras.optimizers.schedules.LearningRateSchedule":
    """Return a learning rate that rises by the same amount with each of some steps and then stays.

    >>> rate = learning_rate(0.4, warmup_steps=4)
    >>> [round(float(rate(step)), 3) for step in range(6)]
    [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]
    """
    if warmup_steps < 2:
        return full
    return keras.optimizers.schedules.PolynomialDecay(full / warmup_steps, warmup_steps - 1, full)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Let layers that are made in the block compute in a precision, named as in `train.precision`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class SaveCheckpoints(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Writes the checkpoint after each epoch, and stops the training after its patience.

    It stands before all other callbacks, which see what it adds to the logs.
    """

    def __init__(self, history: History, checkpoints: Checkpoints, params: TrainParams) -> None:
        super().__init__()
        self.history = history
        self.checkpoints = checkpoints
        self.train_params = params

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Extend the history and the logs, and write the checkpoint."""
        before = self.history[-1][TOTAL_S] if self.history else 0.0
        logs["total_s"] = before + logs["epoch_s"]
        logs["parameters"] = count_parameters(self.model)
        self.history.append(epoch_metrics(logs))
        self.checkpoints.save(self.model, self.history, improved=best_epoch(self.history) == len(self.history))
        limits = self.train_params
        self.model.stop_training = is_finished(self.history, epochs=limits.epochs, patience=limits.patience)
