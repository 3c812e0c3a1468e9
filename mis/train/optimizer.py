"""The optimizer of a training, whose gradients are clipped when those of all devices are added up."""

from typing import Any, TypeVar

import keras
import tensorflow as tf

from mis.params.train import TrainParams

Optimizer = TypeVar("Optimizer", bound=keras.optimizers.Optimizer)

NOT_DECAYED = ("bias", "gamma", "beta")
"""The weights that do not decay, as is usual: biases, and scale and shift of normalisations."""


def make_optimizer(params: TrainParams) -> keras.optimizers.Optimizer:
    """Return the optimizer that the parameters name; call it in the strategy's scope."""
    common: dict[str, Any] = {
        "learning_rate": params.learning_rate,
        "use_ema": params.ema > 0,
        "ema_momentum": params.ema or 0.99,  # Keras wants one, which it does not use without a moving average
        "gradient_accumulation_steps": params.accumulate_steps if params.accumulate_steps > 1 else None,
    }
    decays = params.optimizer != "adam" and params.weight_decay > 0
    if decays or params.optimizer == "adamw":  # whose own default is not 0
        common["weight_decay"] = params.weight_decay
    if params.optimizer == "sgd":
        optimizer = _clipping(keras.optimizers.SGD)(momentum=params.momentum, nesterov=True, **common)
    else:
        kind = keras.optimizers.Adam if params.optimizer == "adam" else keras.optimizers.AdamW
        optimizer = _clipping(kind)(beta_1=params.beta_1, beta_2=params.beta_2, amsgrad=params.amsgrad, **common)
    optimizer.clip_norm = params.clip_norm
    if decays:
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def _clipping(kind: type[Optimizer]) -> type[Optimizer]:
    """Return a class of optimizers that clip the gradient of the global batch.

    Keras' own `global_clipnorm` clips the gradient of each replica before they are added up, so that the result depends
    on the number of devices. `_all_reduce_sum_gradients` adds them up; that it is called is tested.
    """

    class Clipping(kind):  # type: ignore[misc, valid-type]  # mypy takes no class from a variable
        clip_norm: float | None = None

        def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple[tf.Tensor, Any]]) -> list[tuple[tf.Tensor, Any]]:
            reduced = super()._all_reduce_sum_gradients(grads_and_vars)
            if self.clip_norm is None:
                return list(reduced)
            gradients, variables = zip(*reduced, strict=True)
            clipped, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
            return list(zip(clipped, variables, strict=True))

    Clipping.__name__ = kind.__name__
    return Clipping
