"""A trial: a training with some parameters replaced, on a share of a cluster's devices, with or without Ray."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from mis.data.records.index import Records
from mis.params.load import Params
from mis.train.allocate import Share
from mis.train.batch_rule import for_replicas
from mis.train.checkpoint import Checkpoints, History
from mis.train.devices import claim
from mis.train.fit import Fitted, fit
from mis.train.graph_cache import GraphCache
from mis.train.strategy import make_strategy

GRAPH_CACHE = GraphCache()
"""The graph cache of this process, whose trials all have the same devices and strategy."""

Report = Callable[[History], None]
"""Takes the metrics of all epochs so far, after each epoch; its checkpoint has been written before."""


def run_trial(
    params: Params,
    share: Share,
    records: Records,
    checkpoints: Checkpoints,
    report: Report,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    graph_cache: GraphCache = GRAPH_CACHE,
) -> Fitted:
    """Train once, or go on from the checkpoints, on this process' share of the devices.

    Args:
        params: All parameters, with the trial's values.
        share: The devices of the trial. All trials of a process must have the same number.
        records: The cases and their split.
        checkpoints: The checkpoints of the trial, written after each epoch.
        report: Called after each epoch. Where it raises SystemExit, as Ray Tune does to stop a trial, the training
            ends after this epoch and the exception is raised here.
        callbacks: More callbacks.
        graph_cache: The networks that this process has traced for earlier trials.
    """
    checkpoints.set_aside_unreadable()
    devices = claim(share.devices, share.threads, fraction=share.fraction, reserved=share.bundle.get("GPU", 0))
    return train_trial(
        params,
        make_strategy(devices),
        records,
        checkpoints,
        # As the checkpoint has it: what is reported cannot be lost afterwards.
        on_epoch=lambda: report(checkpoints.history()),
        callbacks=callbacks,
        graph_cache=graph_cache,
    )


def train_trial(
    params: Params,
    strategy: tf.distribute.Strategy,
    records: Records,
    checkpoints: Checkpoints,
    *,
    on_epoch: Callable[[], None],
    callbacks: Sequence[keras.callbacks.Callback] = (),
    graph_cache: GraphCache = GRAPH_CACHE,
) -> Fitted:
    """Train once, or go on from the checkpoints, under a strategy.

    Args:
        params: All parameters, with the trial's values.
        strategy: TensorFlow's strategy over the devices; all trials of a process must have the same one.
        records: The cases and their split.
        checkpoints: The checkpoints of the trial, written after each epoch.
        on_epoch: Called after each epoch, when its checkpoint is written. Where it raises SystemExit the training ends
            after this epoch, and the exception is raised here.
        callbacks: More callbacks.
        graph_cache: The networks that this process has traced for earlier trials.
    """
    train = for_replicas(params.train, params.distribute, strategy.num_replicas_in_sync)
    after_epoch = _AfterEpoch(on_epoch)
    with graph_cache.check_out(params.model, train, records):
        fitted = fit(
            params.model,
            train,
            records,
            strategy=strategy,
            checkpoints=checkpoints,
            callbacks=[after_epoch, *callbacks],
            compile_network=graph_cache.compile,
        )
    after_epoch.raise_if_stopped()
    return fitted


class _AfterEpoch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Calls a function after each epoch, which may stop the trial."""

    def __init__(self, on_epoch: Callable[[], None]) -> None:
        super().__init__()
        self.call = on_epoch
        self.stopped: SystemExit | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        """Call it, and end the training where it stops the trial."""
        try:
            self.call()
        except SystemExit as stopped:
            # Keras must end its training in order, because a later trial uses the network again.
            self.stopped = stopped
            self.model.stop_training = True

    def raise_if_stopped(self) -> None:
        """Raise the exception that has stopped the trial, where there was one."""
        if self.stopped is not None:
            raise self.stopped
