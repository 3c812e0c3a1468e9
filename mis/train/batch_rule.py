"""How the batch and the learning rate follow the number of devices: one rule for every mode."""

import math

from mis.params.distribute import DistributeParams
from mis.params.train import TrainParams


def for_replicas(params: TrainParams, rule: DistributeParams, replicas: int) -> TrainParams:
    """Return the parameters of a training with the global batch and the learning rate in force.

    `fixed_global_batch` leaves both alone: the optimisation is the same on any number of devices.
    `per_replica_batch` has `batch_size` cases on each device and scales the learning rate by
    `lr_scaling`: linearly (Goyal et al., 2017, arXiv:1706.02677) or by the square root
    (Krizhevsky, 2014, arXiv:1404.5997). The paper's code scaled it in one of its modes only, so
    that the two searched different spaces.

    Args:
        params: The training's parameters as they stand in params.yaml.
        rule: The batch rule and how the learning rate is scaled.
        replicas: Devices that the training is planned for. The number stays the same when some are lost.
    """
    if rule.batch_rule == "fixed_global_batch":
        return params
    factor = {"none": 1.0, "linear": float(replicas), "sqrt": math.sqrt(replicas)}[rule.lr_scaling]
    return params.model_copy(
        update={"batch_size": params.batch_size * replicas, "learning_rate": params.learning_rate * factor}
    )
