"""How the devices of a cluster are divided among trials or workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mis.errors import MisError


@dataclass(frozen=True)
class Node:
    """The resources of a node of the cluster.

    Attributes:
        cpus: Cores.
        gpus: GPUs.
        memory_bytes: Memory that may be used.
        shared_bytes: Memory for objects that all processes of the node share.
    """

    cpus: int
    gpus: int
    memory_bytes: int = 0
    shared_bytes: int = 0


@dataclass(frozen=True)
class Share:
    """The devices of one trial or worker.

    Attributes:
        devices: GPUs, or logical CPU devices where there is none; all on one node.
        threads: CPU threads of each device.
        concurrent: How many such shares there are.
        bundle: The resources that Ray reserves for it.
        part: The part of its device that it has, where several trials share a device; 1 is the whole device.
    """

    devices: int
    threads: int
    concurrent: int
    bundle: Mapping[str, float]
    part: float = 1


def allocate(nodes: Sequence[Node], devices: float, limit: int | None = None) -> Share:
    """Divide the devices evenly: GPUs with their part of the CPU cores, or else single cores.

    Args:
        nodes: The cluster; where any node has a GPU, GPUs are the devices.
        devices: Devices of each share: a whole number, or the k-th part of one.
        limit: At most this many devices are used in all; None takes all.

    >>> allocate([Node(cpus=40, gpus=4)] * 2, devices=2)
    Share(devices=2, threads=10, concurrent=4, bundle={'CPU': 20, 'GPU': 2}, part=1)
    >>> allocate([Node(cpus=40, gpus=4)], devices=0.5)
    Share(devices=1, threads=5, concurrent=8, bundle={'CPU': 5, 'GPU': 0.5}, part=0.5)
    >>> allocate([Node(cpus=2, gpus=0)], devices=1)
    Share(devices=1, threads=1, concurrent=2, bundle={'CPU': 1}, part=1)
    >>> allocate([Node(cpus=2, gpus=0)], devices=0.5)
    Share(devices=1, threads=1, concurrent=4, bundle={'CPU': 0.5}, part=0.5)

    Raises:
        MisError: No node has so many devices, or fewer may be used.
    """
    if devices < 1:
        return _divide(allocate(nodes, 1, limit), round(1 / devices))
    devices = int(devices)
    gpus = any(node.gpus for node in nodes)
    counts = [node.gpus if gpus else node.cpus for node in nodes]
    usable = min(max(counts), limit or max(counts))
    if devices > usable:
        kind = "GPUs" if gpus else "CPU cores"
        raise MisError(f"a trial's devices must be among the {usable} {kind} of one node that may be used", got=devices)
    threads = max(1, min(node.cpus // count for node, count in zip(nodes, counts, strict=True) if count))
    bundle = {"CPU": threads * devices} | ({"GPU": devices} if gpus else {})
    concurrent = sum(count // devices for count in counts)
    return Share(devices, threads, min(concurrent, limit // devices) if limit else concurrent, bundle)


def _divide(whole: Share, parts: int) -> Share:
    """Return the shares of so many parts of each device of `whole`."""
    threads = max(1, whole.threads // parts)
    # Ray counts in ten-thousandths: parts that are rounded up would not all fit.
    part = int(10_000 / parts) / 10_000
    cpus = threads if threads * parts <= whole.bundle["CPU"] else int(whole.bundle["CPU"] * 10_000 / parts) / 10_000
    bundle = {"CPU": cpus} | ({"GPU": part} if "GPU" in whole.bundle else {})
    return Share(1, threads, whole.concurrent * parts, bundle, part)


def allocate_workers(
    nodes: Sequence[Node], workers: int, devices: int, limit: int | None = None, threads: int | None = None
) -> Share:
    """Divide the devices among the workers of one training.

    Args:
        nodes: The cluster; where any node has a GPU, GPUs are the devices.
        workers: How many workers there must be, on whatever nodes.
        devices: Devices of each worker; they are all on one node.
        limit: At most this many devices are used in all; None takes all.
        threads: CPU threads of each device; by default the most with which all workers fit.

    >>> allocate_workers([Node(cpus=40, gpus=4)] * 2, workers=2, devices=4)
    Share(devices=4, threads=10, concurrent=2, bundle={'CPU': 40, 'GPU': 4}, part=1)
    >>> allocate_workers([Node(cpus=8, gpus=0)], workers=2, devices=1)
    Share(devices=1, threads=4, concurrent=2, bundle={'CPU': 4}, part=1)

    Raises:
        MisError: The nodes do not have as many devices, or fewer may be used.
    """
    gpus = any(node.gpus for node in nodes)

    def room(threads: int) -> int:
        fits = [node.cpus // (threads * devices) for node in nodes]
        if gpus:
            fits = [min(count, node.gpus // devices) for count, node in zip(fits, nodes, strict=True)]
        return sum(fits)

    most_workers = room(threads or 1) if limit is None else min(room(threads or 1), limit // devices)
    if workers > most_workers:
        kind = ("GPU" if gpus else "CPU core") + "s" * (devices > 1)
        kind += f" of {threads} threads" if threads else ""
        raise MisError(
            f"distribute.workers must be at most {most_workers}, for which there are devices: each has {devices} "
            f"{kind} of one node",
            got=workers,
        )
    most_threads = max(node.cpus for node in nodes) // devices
    threads = threads or next(threads for threads in range(most_threads, 0, -1) if room(threads) >= workers)
    bundle = {"CPU": threads * devices} | ({"GPU": devices} if gpus else {})
    return Share(devices, threads, workers, bundle)
