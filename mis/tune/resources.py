"""What the trials of a study have of a cluster, or of this machine: devices, and memory for the records."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import psutil

from mis.errors import MisError
from mis.params.tune import TuneParams
from mis.settings import Settings
from mis.train.allocate import Node, Share, allocate
from mis.train.cluster import cluster
from mis.train.leases import own_devices, visible_gpus
from mis.train.nodes import check_nodes_agree

SHARED_USABLE = 0.8
"""Of the memory that a node's processes share, what the data may take."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is looked at, nothing is written
"""Where Linux has it; Ray would take the disk where it is too small."""


@dataclass(frozen=True)
class Resources:
    """What the trials of a study have of a cluster.

    Attributes:
        nodes: How many nodes there are.
        share: What each trial has.
        in_memory: Whether the records are in the memory of each node.
        limit: The most devices that are used in all; None uses all that there are.
    """

    nodes: int
    share: Share
    in_memory: bool
    limit: int | None = None


@contextmanager
def resources(
    params: TuneParams,
    size_bytes: int,
    settings: Settings,
    say: Callable[[str], None] | None = None,
    *,
    what: str = "a search",
) -> Iterator[Resources]:
    """Yield what the trials of a study have of the cluster, or of this machine, while its records have so many bytes.

    Args:
        params: The search.
        size_bytes: The size of the records.
        settings: The machine's settings.
        say: Takes a line for the user: then devices of this machine that other searches have are left to them, and the
            others taken, and nodes of a Ray cluster are asked whether they have what this process has. None only looks
            what there is.
        what: What takes them, for searches that wait.

    Raises:
        MisError: A trial wants more devices than there are, no cluster answers, or a node of it has other libraries.
    """
    room = shared_room(size_bytes, params.data_memory_share)
    with (
        own_devices(settings, params.devices, say, what=what) if say else nullcontext(settings) as own,
        # Ray lets as many trials of a population run as it has room for, whatever the limit.
        cluster(settings.ray_address, shared_bytes=room, most_cores=None if visible_gpus() else own.devices) as nodes,
    ):
        if say:
            check_nodes_agree(settings.ray_address, say)
        share = allocate(nodes, params.devices_per_trial, own.devices)
        if params.scheduler.name == "pbt" and settings.ray_address is not None:
            _check_all_may_run(share, allocate(nodes, params.devices_per_trial))
        in_memory = fits_in_memory(size_bytes, nodes, params.data_memory_share)
        yield Resources(len(nodes), share, in_memory, own.devices)


def _check_all_may_run(share: Share, without_limit: Share) -> None:
    """Refuse a limit for a population on a cluster: Ray lets as many of its trials run as the cluster has room for."""
    if share.concurrent < without_limit.concurrent:
        raise MisError(
            "on a Ray cluster a population (tune.scheduler pbt) takes all devices: MIS_DEVICES must leave room for "
            f"{without_limit.concurrent} trials at once",
            got=f"for {share.concurrent}",
            do="unset MIS_DEVICES, or start a smaller cluster",
        )


def shared_room(size_bytes: int, share: float) -> int:
    """Return how much memory a local cluster must share between its processes for so many bytes of records.

    It is none where they do not fit the share of the memory that is free.
    """
    free = psutil.virtual_memory().available
    if SHARED_MEMORY.is_dir():
        free = min(free, shutil.disk_usage(SHARED_MEMORY).free)
    return ceil(size_bytes / SHARED_USABLE) if size_bytes <= share * free else 0


def fits_in_memory(size_bytes: int, nodes: Sequence[Node], share: float) -> bool:
    """Return whether so many bytes fit a share of each node's memory, and the part of it that its processes share.

    >>> fits_in_memory(5, [Node(cpus=8, gpus=1, memory_bytes=100, shared_bytes=20)], share=0.1)
    True
    >>> fits_in_memory(5, [Node(cpus=8, gpus=1, memory_bytes=100, shared_bytes=4)], share=0.1)
    False
    """
    return all(
        size_bytes <= share * node.memory_bytes and size_bytes <= SHARED_USABLE * node.shared_bytes for node in nodes
    )
