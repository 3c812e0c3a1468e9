"""The Ray cluster: the one that RAY_ADDRESS names, or a local one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mis.errors import MisError
from mis.settings import Settings
from mis.train.allocate import Node

OBJECT_STORE_BYTES = 128 * 2**20
"""Parameters and metrics pass through it, never volumes; Ray would take a third of the memory."""


@contextmanager
def cluster(settings: Settings) -> Iterator[list[Node]]:
    """Connect to the cluster, yield its nodes, and leave it (or end it, where it is a local one).

    Raises:
        MisError: No cluster answers at RAY_ADDRESS.
    """
    import ray

    try:
        ray.init(**_arguments(settings), log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if settings.ray_address is None:
            raise
        raise MisError(
            f"RAY_ADDRESS must name a Ray cluster that answers: {error}",
            got=settings.ray_address,
            do="start it, or unset it",
        ) from None
    for logger in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield [Node(cpus=int(node.get("CPU", 0)), gpus=int(node.get("GPU", 0))) for node in alive]
    finally:
        ray.shutdown()


def _arguments(settings: Settings) -> dict[str, object]:
    if settings.ray_address is not None:
        return {"address": settings.ray_address}
    return {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
