"""The batch and the learning rate in force, as a run records them."""

from mis.params.distribute import DistributeParams
from mis.params.train import TrainParams
from mis.train.batch_rule import for_replicas


def in_force(params: TrainParams, rule: DistributeParams, replicas: int) -> dict[str, object]:
    """Return what a run records of its batch rule, beside the parameters themselves.

    Args:
        params: The training's parameters as they stand in params.yaml.
        rule: The batch rule and how the learning rate is scaled.
        replicas: Devices that the training is planned for.
    """
    resolved = for_replicas(params, rule, replicas)
    scaling = "" if rule.batch_rule == "fixed_global_batch" else f", learning rate scaling {rule.lr_scaling}"
    return {
        "in_force.rule": f"{rule.batch_rule}{scaling}",
        "in_force.replicas": replicas,
        "in_force.global_batch_size": resolved.batch_size,
        "in_force.learning_rate": resolved.learning_rate,
    }
