"""A cache of the networks that a process has traced, for its later trials.

Tracing takes as long as some epochs of a small network, and leaves tens of megabytes behind. Trials that differ only
in what is not in the graph, such as the learning rate, therefore share a network. Its weights, its optimizer's state
and its learning rate are set to those of a new network before a trial gets it.
"""

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from mis.data.records.index import Records
from mis.params.model import ModelParams
from mis.params.train import TrainParams
from mis.train.fit import build_training_model, compile_unet

CAPACITY = 8
"""How many networks a process keeps: as many as the paper's grid has apart from the learning rate."""


@dataclass(frozen=True)
class TracedNetwork:
    """A compiled network that can be set back to how it was before its first step.

    Attributes:
        model: The compiled network.
        initial_optimizer_state: The values of the optimizer's variables before the first step; not all of them are 0.
    """

    model: keras.Model
    initial_optimizer_state: Sequence[np.ndarray]

    @classmethod
    def from_untrained(cls, model: keras.Model) -> "TracedNetwork":
        """Return a compiled network that has not been trained yet, with the state of its optimizer."""
        return cls(model, [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables])

    def reset(self, new: keras.Model) -> None:
        """Set weights and seeds of dropout to those of a new network, and the optimizer to its initial state."""
        for variable, value in zip(self.model.variables, new.variables, strict=True):
            variable.assign(value)
        for variable, value in zip(self.model.optimizer.variables, self.initial_optimizer_state, strict=True):
            variable.assign(value)


class GraphCache:
    """The traced networks of a process; all are of the same strategy.

    Attributes:
        capacity: The most networks that are kept; where there would be more, that which was used least recently goes.
        idle: The networks that no trial uses now, by what their graphs depend on, the least recently used first.
        in_use: The network of the trial that runs now; None where none runs or where it has no network yet.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.idle: dict[str, TracedNetwork] = {}
        self.in_use: TracedNetwork | None = None

    @contextmanager
    def check_out(self, model_params: ModelParams, params: TrainParams, records: Records) -> Iterator[None]:
        """Reserve a network for the trial in the block, which gets it from `compile`; an error drops the network.

        Args:
            model_params: The parameters of the network.
            params: The parameters of the training.
            records: The cases that the trial is trained on.
        """
        key = _graph_key(model_params, params, records)
        self.in_use = self.idle.pop(key, None)
        if self.in_use is None:
            keras.backend.clear_session()  # it would empty TensorFlow's cache of a network that is used again
        try:
            yield
            if self.in_use is not None:
                self.idle[key] = self.in_use
        finally:
            self.in_use = None
        if len(self.idle) > self.capacity:
            del self.idle[next(iter(self.idle))]
            gc.collect()

    def compile(self, model_params: ModelParams, params: TrainParams, records: Records) -> keras.Model:
        """Return the same network as `mis.train.fit.compile_unet`, with a traced graph where the cache has that."""
        if self.in_use is None:
            self.in_use = TracedNetwork.from_untrained(compile_unet(model_params, params, records))
        else:
            # Initial weights are drawn from Python's generator. To seed TensorFlow's too would make it forget how it
            # runs the graph, which takes half as long as tracing.
            random.seed(params.seed)
            self.in_use.reset(build_training_model(model_params, params, records))
        return self.in_use.model

    def clear(self) -> bool:
        """Drop all idle networks, to free their memory, and return whether there were any."""
        had_networks = bool(self.idle)
        self.idle.clear()
        gc.collect()
        return had_networks


def _graph_key(model_params: ModelParams, params: TrainParams, records: Records) -> str:
    """Return all that a network's graph depends on, as text."""
    return repr((model_params.model_dump(), params.in_the_graph(), records.shape, records.modalities, records.regions))
