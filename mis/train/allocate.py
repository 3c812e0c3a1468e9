"""How the devices of a cluster are divided among trials or workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mis.errors import MisError


@dataclass(frozen=True)
class Node:
    """The resources of a node of a cluster.

    Attributes:
        cpus: How many CPU cores it has.
        gpus: How many GPUs it has.
        memory_bytes: Memory that its processes may use.
        shared_bytes: Size of its object store, the memory that all its processes share.
        name: Ray's name of it, the same as long as it is part of the cluster.
    """

    cpus: int
    gpus: int
    memory_bytes: int = 0
    shared_bytes: int = 0
    name: str = ""


@dataclass(frozen=True)
class Share:
    """The devices that a trial or a worker has.

    Attributes:
        devices: How many GPUs, or logical CPU devices where there is no GPU; all on the same node. A trial that is
            spread over several processes has so many in each.
        threads: CPU threads of each device.
        concurrent: How many such shares the cluster has, all in use at the same time.
        bundle: The resources that Ray reserves for the share (for each process of the trial), by Ray's names.
        fraction: The fraction of the device that it has, where several trials share a device; 1 is the whole device.
        processes: Over how many processes the trial is spread; 1 unless it has more devices than a node.
    """

    devices: int
    threads: int
    concurrent: int
    bundle: Mapping[str, float]
    fraction: float = 1
    processes: int = 1

    @property
    def replicas(self) -> int:
        """Over how many devices a training is spread."""
        return self.devices * self.processes


def allocate(nodes: Sequence[Node], devices: float, limit: int | None = None) -> Share:
    """Divide the devices evenly: GPUs with equal parts of the CPU cores, or single cores where no node has a GPU.

    Args:
        nodes: The cluster; where any node has a GPU, GPUs are the devices.
        devices: Devices of each share: a whole number, or 1/k for k shares of each device.
        limit: The most devices that are used in all; None uses all that there are.

    >>> allocate([Node(cpus=40, gpus=4)] * 2, devices=2)
    Share(devices=2, threads=10, concurrent=4, bundle={'CPU': 20, 'GPU': 2}, fraction=1, processes=1)
    >>> allocate([Node(cpus=40, gpus=4)], devices=0.5)
    Share(devices=1, threads=5, concurrent=8, bundle={'CPU': 5, 'GPU': 0.5}, fraction=0.5, processes=1)
    >>> allocate([Node(cpus=2, gpus=0)], devices=1)
    Share(devices=1, threads=1, concurrent=2, bundle={'CPU': 1}, fraction=1, processes=1)
    >>> allocate([Node(cpus=40, gpus=4)] * 2, devices=8)
    Share(devices=4, threads=10, concurrent=1, bundle={'CPU': 40, 'GPU': 4}, fraction=1, processes=2)

    Raises:
        MisError: The cluster does not have so many devices that they can be divided evenly among its nodes, or fewer
            may be used.
    """
    if devices < 1:
        return _divide(allocate(nodes, 1, limit), round(1 / devices))
    devices = int(devices)
    counts = device_counts(nodes)
    usable = min(sum(counts), limit or sum(counts))
    # On as few nodes as possible: the fewest processes that there is room for.
    splits = (count for count in range(1, devices + 1) if devices % count == 0)
    processes = next((count for count in splits if sum(n // (devices // count) for n in counts) >= count), None)
    if devices > usable or processes is None:
        kind = "GPUs" if any(node.gpus for node in nodes) else "CPU cores"
        raise MisError(f"a trial's devices must be among the {usable} {kind} that may be used", got=devices)
    each, threads = devices // processes, threads_per_device(nodes)
    concurrent = sum(count // each for count in counts) // processes
    concurrent = min(concurrent, limit // devices) if limit else concurrent
    return Share(each, threads, concurrent, bundle_of(nodes, each), processes=processes)


def device_counts(nodes: Sequence[Node]) -> list[int]:
    """Return how many devices each node has: GPUs, or CPU cores where no node has a GPU."""
    gpus = any(node.gpus for node in nodes)
    return [node.gpus if gpus else node.cpus for node in nodes]


def threads_per_device(nodes: Sequence[Node]) -> int:
    """Return the CPU threads of each device of a trial, the same on every node."""
    counts = device_counts(nodes)
    return max(1, min(node.cpus // count for node, count in zip(nodes, counts, strict=True) if count))


def bundle_of(nodes: Sequence[Node], devices: int) -> dict[str, float]:
    """Return the resources that Ray reserves for a process with so many devices of a node, by Ray's names."""
    gpus = {"GPU": devices} if any(node.gpus for node in nodes) else {}
    return {"CPU": threads_per_device(nodes) * devices, **gpus}


def _divide(whole: Share, parts: int) -> Share:
    """Divide each device of `whole` among several shares.

    Args:
        whole: The shares of a whole device each.
        parts: How many shares each device is divided into.
    """
    threads = max(1, whole.threads // parts)
    # Ray counts in ten-thousandths: fractions that are rounded up would not all fit.
    fraction = int(10_000 / parts) / 10_000
    cpus = threads if threads * parts <= whole.bundle["CPU"] else int(whole.bundle["CPU"] * 10_000 / parts) / 10_000
    bundle = {"CPU": cpus} | ({"GPU": fraction} if "GPU" in whole.bundle else {})
    return Share(1, threads, whole.concurrent * parts, bundle, fraction)


def allocate_workers(
    nodes: Sequence[Node], workers: int, devices: int, limit: int | None = None, threads: int | None = None
) -> Share:
    """Divide the devices among the workers of a training.

    Args:
        nodes: The cluster; where any node has a GPU, GPUs are the devices.
        workers: How many workers the training has, on whatever nodes.
        devices: Devices of each worker, all on the same node.
        limit: The most devices that are used in all; None uses all that there are.
        threads: CPU threads of each device; by default as many as possible.

    >>> allocate_workers([Node(cpus=40, gpus=4)] * 2, workers=2, devices=4)
    Share(devices=4, threads=10, concurrent=2, bundle={'CPU': 40, 'GPU': 4}, fraction=1, processes=1)
    >>> allocate_workers([Node(cpus=8, gpus=0)], workers=2, devices=1)
    Share(devices=1, threads=4, concurrent=2, bundle={'CPU': 4}, fraction=1, processes=1)

    Raises:
        MisError: The nodes do not have as many devices, or fewer may be used.
    """
    gpus = any(node.gpus for node in nodes)

    def workers_that_fit(threads: int) -> int:
        counts = [node.cpus // (threads * devices) for node in nodes]
        if gpus:
            counts = [min(count, node.gpus // devices) for count, node in zip(counts, nodes, strict=True)]
        return sum(counts)

    most_workers = workers_that_fit(threads or 1)
    if limit is not None:
        most_workers = min(most_workers, limit // devices)
    if workers > most_workers:
        kind = ("GPU" if gpus else "CPU core") + "s" * (devices > 1)
        kind += f" of {threads} threads" if threads else ""
        raise MisError(
            f"distribute.workers must be at most {most_workers}, for which there are devices: each has {devices} "
            f"{kind} of one node",
            got=workers,
        )
    most_threads = max(node.cpus for node in nodes) // devices
    threads = threads or next(threads for threads in range(most_threads, 0, -1) if workers_that_fit(threads) >= workers)
    bundle = {"CPU": threads * devices} | ({"GPU": devices} if gpus else {})
    return Share(devices, threads, workers, bundle)
