"""One training, over whatever devices its strategy has."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from mis.data.pipeline.dataset import Part, case_batches, damage_as_error, steps_per_epoch, training_batches
from mis.data.records.index import Records
from mis.files import copy_file
from mis.model.card import ModelCard
from mis.model.losses import SegmentationLoss
from mis.model.metrics import dice_metrics
from mis.model.unet import connect_unet, count_parameters
from mis.params.model import ModelParams
from mis.params.train import TrainParams
from mis.track.names import TOTAL_S, VAL_PREFIX
from mis.train import messages
from mis.train.checkpoint import BEST, Checkpoints, History, best_epoch, is_finished, restore
from mis.train.learning_rate import SetLearningRate
from mis.train.logs import epoch_metrics
from mis.train.moving_average import UseMovingAverage
from mis.train.optimizer import make_optimizer
from mis.train.teardown import untuned_buffers
from mis.train.timing import TimeSteps
from mis.train.training_model import TrainingModel

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

    def write_model(self, path: Path) -> None:
        """Write the model after its best epoch."""
        copy_file(self.best_model, path)

    def finish(self) -> None:
        """Remove the checkpoints; call it once the model is elsewhere."""
        self.checkpoints.remove()

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
    if params.deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)
    with strategy.scope():
        model = (compile_network or compile_unet)(model_params, params, records)
    newest = checkpoints.newest()
    history = restore(model, newest) if newest else []
    if not is_finished(history, epochs=params.epochs, patience=params.patience):
        split = records.split_for(params)
        cases, val = split.train, split.val
        steps, first = steps_of_epoch(params, len(cases)), len(history)
        val_batch_size = validation_batch(params, strategy.num_replicas_in_sync)
        average = UseMovingAverage() if params.ema else None
        with untuned_buffers(), damage_as_error(records):
            model.fit(
                strategy.distribute_datasets_from_function(
                    lambda context: training_batches(
                        records, cases, params, first_step=first * steps, part=Part.of(context)
                    )
                ),
                steps_per_epoch=steps,
                validation_data=strategy.distribute_datasets_from_function(
                    lambda context: case_batches(records, val, val_batch_size, passes=None, part=Part.of(context))
                ),
                validation_steps=steps_per_epoch(len(val), val_batch_size),
                initial_epoch=first,
                epochs=params.epochs,
                callbacks=[
                    SetLearningRate(params, steps),
                    *([average] if average else []),
                    TimeSteps(params.cases_of_epoch(len(cases)), steps),
                    SaveCheckpoints(history, checkpoints, params, ModelCard.of(records, model_params, params), average),
                    *callbacks,
                ],
                shuffle=False,
                verbose=0,
            )
    return Fitted(history, count_parameters(model), checkpoints)


def steps_of_epoch(params: TrainParams, cases: int) -> int:
    """Return how many steps an epoch has, where there are so many cases to train on."""
    return params.steps_per_epoch or params.patches_per_case * steps_per_epoch(cases, params.batch_size)


def validation_batch(params: TrainParams, replicas: int) -> int:
    """Return how many whole cases a step of validation has, on all devices together: a multiple of their number."""
    if params.val_batch_size is None and params.patch_size is None:
        return params.batch_size
    return replicas * -(-(params.val_batch_size or 1) // replicas)


def compile_unet(model_params: ModelParams, params: TrainParams, records: Records) -> TrainingModel:
    """Build and compile the network, with the initial weights of its seed; call it in the strategy's scope.

    Raises:
        MisError: The device cannot compute in this precision.
    """
    if params.precision == "mixed_float16" and not tf.config.list_logical_devices("GPU"):
        raise messages.float16_without_gpu()
    keras.utils.set_random_seed(params.seed)
    model = build_training_model(model_params, params, records)
    model.compile(
        optimizer=make_optimizer(params),
        weighted_metrics=dice_metrics(records.regions),
        jit_compile=params.jit_compile,
    )
    # Made while tracing, the optimizer's variables cost 2.5 s more and leak 57 MB a model, not 19.
    model.optimizer.build(model.trainable_variables)
    return model


def build_training_model(model_params: ModelParams, params: TrainParams, records: Records) -> TrainingModel:
    """Build the network as it is trained; its initial weights are drawn from Python's generator."""
    with precision(params.precision):
        network = connect_unet(model_params, len(records.modalities), len(records.regions))
        loss = SegmentationLoss(params.loss, params.dice_smooth, params.tversky_alpha, params.focal_gamma)
        return TrainingModel(
            network,
            loss,
            windows=params.patch_size,
            windows_at_once=max(1, params.batch_size // tf.distribute.get_strategy().num_replicas_in_sync),
        )


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

    def __init__(
        self,
        history: History,
        checkpoints: Checkpoints,
        params: TrainParams,
        card: ModelCard,
        average: UseMovingAverage | None = None,
    ) -> None:
        """Prepare for a training.

        Args:
            history: The epochs so far, to which this one adds.
            checkpoints: Where the checkpoints are written.
            params: What ends the training.
            card: What is kept with the best model.
            average: The moving average of the weights, which the best model gets; None where there is none.
        """
        super().__init__()
        self.card = card
        self.average = average
        self.history = history
        self.checkpoints = checkpoints
        self.train_params = params

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Extend the history and the logs, and write the checkpoint."""
        before = self.history[-1][TOTAL_S] if self.history else 0.0
        logs["total_s"] = before + logs["epoch_s"]
        logs["parameters"] = count_parameters(self.model)
        self.history.append(epoch_metrics(logs))
        improved = best_epoch(self.history) == len(self.history)
        best_weights = self.average.in_use() if self.average else None
        self.checkpoints.save(self.model, self.history, improved=improved, best_weights=best_weights, card=self.card)
        limits = self.train_params
        self.model.stop_training = is_finished(self.history, epochs=limits.epochs, patience=limits.patience)
