"""How the devices of a cluster are divided among trials: pure figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from mis.errors import MisError


@dataclass(frozen=True)
class Node:
    """What one node of the cluster has."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Share:
    """What one trial or worker has.

    Attributes:
        devices: GPUs, or logical CPU devices where there is none; all on one node.
        threads: CPU threads of each device.
        concurrent: How many such shares there are.
        bundle: What Ray reserves for it.
    """

    devices: int
    threads: int
    concurrent: int
    bundle: dict[str, int]


def allocate(nodes: Sequence[Node], devices: int, limit: int | None = None) -> Share:
    """Divide the devices evenly: GPUs with their part of the CPU cores, or else single cores.

    Args:
        nodes: The cluster; where any node has a GPU, GPUs are the devices.
        devices: Devices of each share.
        limit: At most this many devices are used in all; None takes all.

    >>> allocate([Node(cpus=40, gpus=4)] * 2, devices=2)
    Share(devices=2, threads=10, concurrent=4, bundle={'CPU': 20, 'GPU': 2})
    >>> allocate([Node(cpus=2, gpus=0)], devices=1)
    Share(devices=1, threads=1, concurrent=2, bundle={'CPU': 1})

    Raises:
        MisError: No node has as many devices, or fewer may be used.
    """
    gpus = any(node.gpus for node in nodes)
    there = [node.gpus if gpus else node.cpus for node in nodes]
    usable = min(max(there), limit or max(there))
    if devices > usable:
        kind = "GPUs" if gpus else "CPU cores"
        raise MisError(f"a trial's devices must be among the {usable} {kind} of one node that may be used", got=devices)
    threads = max(1, min(node.cpus // count for node, count in zip(nodes, there, strict=True) if count))
    bundle = {"CPU": threads * devices} | ({"GPU": devices} if gpus else {})
    concurrent = sum(count // devices for count in there)
    return Share(devices, threads, min(concurrent, limit // devices) if limit else concurrent, bundle)


def allocate_workers(
    nodes: Sequence[Node], workers: int, devices: int, limit: int | None = None, threads: int | None = None
) -> Share:
    """Divide the devices among the workers of one training.

    Args:
        nodes: The cluster; where any node has a GPU, GPUs are the devices.
        workers: How many there must be, on whatever nodes.
        devices: Devices of each; all of a worker's are on one node.
        limit: At most this many devices are used in all; None takes all.
        threads: CPU threads of each device; by default the most with which all workers fit.

    >>> allocate_workers([Node(cpus=40, gpus=4)] * 2, workers=2, devices=4)
    Share(devices=4, threads=10, concurrent=2, bundle={'CPU': 40, 'GPU': 4})
    >>> allocate_workers([Node(cpus=8, gpus=0)], workers=2, devices=1)
    Share(devices=1, threads=4, concurrent=2, bundle={'CPU': 4})

    Raises:
        MisError: The nodes have not as many devices, or fewer may be used.
    """
    gpus = any(node.gpus for node in nodes)

    def room(threads: int) -> int:
        places = [node.cpus // (threads * devices) for node in nodes]
        if gpus:
            places = [min(place, node.gpus // devices) for place, node in zip(places, nodes, strict=True)]
        return sum(places)

    there = room(threads or 1) if limit is None else min(room(threads or 1), limit // devices)
    if workers > there:
        kind = ("GPU" if gpus else "CPU core") + "s" * (devices > 1)
        kind += f" of {threads} threads" if threads else ""
        raise MisError(
            f"distribute.workers must be at most {there}, for which there are devices: each has {devices} {kind} of "
            "one node",
            got=workers,
        )
    most = max(node.cpus for node in nodes) // devices
    threads = threads or next(threads for threads in range(most, 0, -1) if room(threads) >= workers)
    bundle = {"CPU": threads * devices} | ({"GPU": devices} if gpus else {})
    return Share(devices, threads, workers, bundle)
