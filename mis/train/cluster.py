"""The Ray cluster: the one that RAY_ADDRESS names, or a local one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mis.errors import MisError
from mis.settings import cores
from mis.train.allocate import Node

OBJECT_STORE_BYTES = 128 * 2**20
"""Parameters and metrics pass through it, never volumes; Ray would take a third of the memory."""


@contextmanager
def cluster(address: str | None, at_least: int = 1) -> Iterator[list[Node]]:
    """Connect to the cluster, yield its nodes, and leave it (or end it, where it is a local one).

    A process that is connected already stays so.

    Args:
        address: The cluster's; None starts a local one.
        at_least: Cores that a local cluster must claim to have, even where there are fewer.

    Raises:
        MisError: No cluster answers at the address.
    """
    import ray

    if ray.is_initialized():
        yield alive_nodes()
        return
    try:
        ray.init(**_arguments(address, at_least), log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        raise MisError(
            f"RAY_ADDRESS must name a Ray cluster that answers: {error}",
            got=address,
            do="start it, or unset it",
        ) from None
    for logger in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        yield alive_nodes()
    finally:
        ray.shutdown()


def alive_nodes() -> list[Node]:
    """Return what the nodes have that are part of the cluster now."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(cpus=int(node.get("CPU", 0)), gpus=int(node.get("GPU", 0))) for node in alive]


def _arguments(address: str | None, at_least: int) -> dict[str, object]:
    if address is not None:
        return {"address": address}
    local = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    return {**local, "num_cpus": at_least} if at_least > cores() else local
