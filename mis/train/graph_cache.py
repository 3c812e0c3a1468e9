"""Networks that a process has traced, for its later trials.

Tracing takes as long as some epochs of a small network, and leaves tens of megabytes behind. Trials that
differ in what the graph does not have, such as the learning rate, share one: its weights, its optimizer's
state and its learning rate are set to those of a new one.
"""

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from mis.data.records.index import Records
from mis.model.unet import build_unet
from mis.params.model import ModelParams
from mis.params.train import TrainParams
from mis.train.fit import compile_unet, precision

MOST = 8
"""Networks that a process keeps: as many as the paper's grid has but for the learning rate."""

NOT_IN_THE_GRAPH = {"seed", "epochs", "patience", "learning_rate", "warmup_epochs"}
"""Of `train`; a learning rate that rises is in the graph, and then nothing is shared."""


@dataclass(frozen=True)
class Network:
    """A compiled network.

    Attributes:
        model: It.
        first: What its optimizer's variables were before the first step; not all of them were 0.
    """

    model: keras.Model
    first: Sequence[np.ndarray]

    @classmethod
    def of(cls, model: keras.Model) -> "Network":
        """Return a network that has not been trained yet."""
        return cls(model, [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables])

    def renew(self, fresh: keras.Model, learning_rate: float) -> None:
        """Take over a new network's weights, and let the optimizer be as it was, with this learning rate."""
        self.model.set_weights(fresh.get_weights())
        for variable, value in zip(self.model.optimizer.variables, self.first, strict=True):
            variable.assign(value)
        self.model.optimizer.learning_rate = learning_rate


class Networks:
    """The networks of one process, all of one strategy.

    Attributes:
        kept: Those that no trial has now, each with its optimizer's first state; the one used last at the end.
    """

    def __init__(self, most: int = MOST) -> None:
        """Keep at most so many."""
        self.most = most
        self.kept: dict[str, Network] = {}
        self.current: Network | None = None

    @contextmanager
    def lent(self, model_params: ModelParams, params: TrainParams, records: Records) -> Iterator[None]:
        """Lend a trial its network, see `compile`; after an error it is not taken back.

        Args:
            model_params: The network.
            params: The training.
            records: What it is trained on.
        """
        key = _key(model_params, params, records)
        self.current = None if params.warmup_epochs else self.kept.pop(key, None)
        if self.current is None:
            keras.backend.clear_session()  # it would empty TensorFlow's cache of a network that is used again
        try:
            yield
            if self.current is not None and not params.warmup_epochs:
                self.kept[key] = self.current
        finally:
            self.current = None
        if len(self.kept) > self.most:
            del self.kept[next(iter(self.kept))]
            gc.collect()

    def compile(self, model_params: ModelParams, params: TrainParams, records: Records) -> keras.Model:
        """Return what `mis.train.fit.compile_unet` does, its graph traced before where there was such a network."""
        if self.current is None:
            self.current = Network.of(compile_unet(model_params, params, records))
        else:
            # Initial weights are drawn from Python's generator. To seed TensorFlow's too would make it forget how it
            # runs the graph, which takes half as long as tracing.
            random.seed(params.seed)
            with precision(params.precision):
                fresh = build_unet(model_params, len(records.modalities), len(records.regions))
            self.current.renew(fresh, params.learning_rate)
        return self.current.model

    def forget(self) -> bool:
        """Keep none, to make room; return whether there were any."""
        had = bool(self.kept)
        self.kept.clear()
        gc.collect()
        return had


def _key(model_params: ModelParams, params: TrainParams, records: Records) -> str:
    train = params.model_dump(exclude=NOT_IN_THE_GRAPH)
    return repr((model_params.model_dump(), train, records.shape, records.modalities, records.regions))
