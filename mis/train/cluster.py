"""The Ray cluster: the one that RAY_ADDRESS names, or a local one."""

import gc
import logging
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mis.errors import MisError
from mis.settings import cores
from mis.termination import exit_in_order
from mis.train.allocate import Node
from mis.train.progress import show_message

LOCAL_STARTS = 2
"""How often a cluster of this machine's own is started at most."""

SOCKETS = "AF_UNIX path length"
"""In what Ray says where the names of its sockets are too long for Linux."""

OBJECT_STORE_BYTES = 128 * 2**20
"""Size of the object store of a local cluster, for parameters and metrics; Ray would take a third of the memory."""

NODE_LABEL = "ray.io/node-id"
"""The label that Ray gives each node: its name."""

CONNECT_S = 10.0
"""Seconds to wait for an answer at the cluster's address."""


@contextmanager
def cluster(
    address: str | None, at_least: int = 1, shared_bytes: int = 0, most_cores: int | None = None
) -> Iterator[list[Node]]:
    """Connect to the cluster, yield its nodes, and leave it (or end it, where it is a local one).

    A process that is connected already stays so.

    Args:
        address: The cluster's; None starts a local one.
        at_least: Cores that a local cluster claims to have, even where the machine has fewer.
        shared_bytes: Bytes of a local cluster's object store beside `OBJECT_STORE_BYTES`, for what its processes share.
        most_cores: Cores that a local cluster claims to have at most; None claims all that this process may use.

    Raises:
        MisError: No cluster answers at the address, or the name of the folder of temporary files is too long.
    """
    import ray

    if ray.is_initialized():
        yield alive_nodes()
        return
    if address is not None:
        _check_answers(address)
    try:
        _start(_arguments(address, at_least, shared_bytes, most_cores))
    except (OSError, RuntimeError, ValueError) as error:
        if SOCKETS in str(error):
            raise MisError(
                "the folder of temporary files must have a short name, as Ray has its sockets below it",
                got=tempfile.gettempdir(),
                do="set TMPDIR to another one",
            ) from None
        if address is None or (isinstance(error, OSError) and not isinstance(error, ConnectionError)):
            raise
        raise MisError(
            f"RAY_ADDRESS must name a Ray cluster that answers: {error}",
            got=address,
            do="start it, unset it, or export the RAY_AUTH_TOKEN that it was started with",
        ) from None
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler aborts at once; with this one the blocks that were begun are ended, as after Ctrl-C.
        signal.signal(signal.SIGTERM, exit_in_order)
    for logger in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        yield alive_nodes()
    finally:
        # What is found to be garbage later, in whatever thread, would ask Ray, which ends a process that does so.
        gc.collect()
        ray.shutdown()


def _start(arguments: Mapping[str, object]) -> None:
    """Start or join a cluster; one of this machine's own is started once more where the machine was too busy."""
    import ray

    attempts = LOCAL_STARTS if arguments["address"] == "local" else 1
    for left in reversed(range(attempts)):
        try:
            ray.init(**arguments, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:  # Ray raises no type of its own where its processes are not there in time
            if left == 0 or isinstance(error, ValueError) or SOCKETS in str(error):
                raise
            show_message(f"Ray did not start ({str(error).strip().splitlines()[0]}): once more")
            ray.shutdown()
        else:
            return


def is_connected() -> bool:
    """Return whether this process is connected to a cluster already."""
    import ray

    return bool(ray.is_initialized())


def alive_nodes() -> list[Node]:
    """Return the nodes that are part of the cluster now, with their cores, GPUs and memory."""
    import ray

    alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [
        Node(
            cpus=int(has.get("CPU", 0)),
            gpus=int(has.get("GPU", 0)),
            memory_bytes=int(has.get("memory", 0)),
            shared_bytes=int(has.get("object_store_memory", 0)),
            name=name,
        )
        for name, has in alive
    ]


def _check_answers(address: str) -> None:
    """Refuse an address at which no server listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():  # "auto", or a name that Ray knows
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise MisError(
            f"RAY_ADDRESS must name a Ray cluster that answers ({error.strerror or error})",
            got=address,
            do="start it, or unset it",
        ) from None


def _arguments(address: str | None, at_least: int, shared_bytes: int, most_cores: int | None) -> dict[str, object]:
    if address is not None:
        return {"address": address}
    room = OBJECT_STORE_BYTES + shared_bytes
    local = {"address": "local", "include_dashboard": False, "object_store_memory": room}
    claimed = max(at_least, cores() if most_cores is None else min(most_cores, cores()))
    return local if claimed == cores() else {**local, "num_cpus": claimed}
