"""What a training costs on so many devices: a model with named terms, each of them physical.

The time of a step is computing, waiting for the slowest replica, and the all-reduce of the gradients; or that of
reading its batch where this takes longer, because batches are read ahead. An epoch has besides its steps a validation,
and what takes as long on any number of devices. A trial starts, and where its devices change it restarts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import inf, log2

from mis.scaling.workload import Workload
from mis.tune.allocation import Place, Speeds


@dataclass(frozen=True)
class Costs:
    """The parameters of the model. Those in seconds and bytes are at least 0; a rate may be infinite: no limit.

    Attributes:
        step_s: Seconds of a step on a device, whatever its cases: launching kernels, the optimizer.
        sample_s: Seconds that a device computes for each training case.
        validation_sample_s: Seconds that a device computes for each validated case.
        waiting_share: By which part of its computing a step becomes longer with each doubling of the devices, because
            replicas wait for the slowest of them, or share a memory bus.
        gradient_bytes: Bytes of all gradients.
        all_reduces: All-reduces of a step, each with a latency of its own: one for the gradients, and those of batch
            norm's statistics.
        within_latency_s: Latency between two devices of a node.
        within_bytes_per_s: Bandwidth between two devices of a node.
        between_latency_s: Latency between two nodes.
        between_bytes_per_s: Bandwidth between two nodes.
        sample_bytes: Bytes that are read for a case.
        shared_bytes_per_s: Bandwidth of the file system, which all devices that read have together.
        node_bytes_per_s: Bandwidth from the file system into a node, which its devices have together.
        epoch_s: Seconds of an epoch that any number of devices takes: bookkeeping, and a validation on one device.
        checkpoint_s: Seconds in which a checkpoint is written after each epoch.
        start_s: Seconds before the first epoch of a trial on one device: start of processes, tracing, opening data.
        start_per_device_s: By how much longer a start takes with each device beyond the first.
        restart_s: Seconds that a trial on one device loses when its devices change; `start_per_device_s` adds to it.
    """

    step_s: float = 0.0
    sample_s: float = 0.0
    validation_sample_s: float = 0.0
    waiting_share: float = 0.0
    gradient_bytes: float = 0.0
    all_reduces: float = 1.0
    within_latency_s: float = 0.0
    within_bytes_per_s: float = inf
    between_latency_s: float = 0.0
    between_bytes_per_s: float = inf
    sample_bytes: float = 0.0
    shared_bytes_per_s: float = inf
    node_bytes_per_s: float = inf
    epoch_s: float = 0.0
    checkpoint_s: float = 0.0
    start_s: float = 0.0
    start_per_device_s: float = 0.0
    restart_s: float = 0.0


NAMES = tuple(field.name for field in fields(Costs))
RATES = tuple(name for name in NAMES if name.endswith("_bytes_per_s"))


@dataclass(frozen=True)
class Load:
    """How many devices read at the same time, those of the training itself among them.

    Attributes:
        total: On all nodes together.
        on_node: On that of the training's nodes where they are most.
    """

    total: int
    on_node: int


@dataclass(frozen=True)
class Terms:
    """Seconds of an epoch, by what they go into.

    Attributes:
        computing_s: Computing of the steps, on each device at the same time.
        waiting_s: Waiting for the slowest replica.
        all_reduce_s: All-reduces.
        input_s: Waiting for batches: reading takes so much longer than the rest of the steps.
        validation_s: The validation, which is spread over the devices.
        fixed_s: What takes as long on any number of devices.
        checkpoint_s: Writing the checkpoint.
    """

    computing_s: float
    waiting_s: float
    all_reduce_s: float
    input_s: float
    validation_s: float
    fixed_s: float
    checkpoint_s: float

    @property
    def total_s(self) -> float:
        """Seconds of the epoch."""
        return sum(float(getattr(self, field.name)) for field in fields(self))


def all_reduce_s(costs: Costs, place: Place) -> float:
    """Return the seconds of a step's all-reduces: in a ring within each node, then in one between the nodes.

    A ring of n moves 2 (n - 1) / n of the bytes over each link, in 2 (n - 1) messages one after another (Patarasuk and
    Yuan 2009).

    >>> costs = Costs(gradient_bytes=8e9, within_bytes_per_s=1e9, between_bytes_per_s=4e9)
    >>> all_reduce_s(costs, Place(((0, 2),))), all_reduce_s(costs, Place(((0, 2), (1, 2))))
    (8.0, 10.0)
    """
    within = _ring_s(costs, max(count for _, count in place.counts), costs.within_latency_s, costs.within_bytes_per_s)
    return within + _ring_s(costs, len(place.counts), costs.between_latency_s, costs.between_bytes_per_s)


def _ring_s(costs: Costs, members: int, latency_s: float, bytes_per_s: float) -> float:
    messages = 2 * (members - 1)
    return messages * (costs.all_reduces * latency_s + costs.gradient_bytes / members / bytes_per_s)


def reading_s(costs: Costs, load: Load) -> float:
    """Return the seconds in which a device gets a case, where so many read: each has the same share of a bandwidth.

    >>> reading_s(Costs(sample_bytes=1e6, shared_bytes_per_s=4e6, node_bytes_per_s=1e6), Load(total=8, on_node=4))
    4.0
    """
    return costs.sample_bytes * max(load.total / costs.shared_bytes_per_s, load.on_node / costs.node_bytes_per_s)


def step_s(costs: Costs, workload: Workload, place: Place, load: Load) -> float:
    """Return the seconds of a training step."""
    terms = epoch_terms(costs, workload, place, load)
    steps = workload.steps(place.devices)
    return (terms.computing_s + terms.waiting_s + terms.all_reduce_s + terms.input_s) / steps


def epoch_terms(costs: Costs, workload: Workload, place: Place, load: Load, factor: float = 1.0) -> Terms:
    """Return the seconds of an epoch by term.

    Args:
        costs: The costs.
        workload: The cases and the batch.
        place: The devices that the training is spread over.
        load: How many devices read at the same time.
        factor: How many times longer this trial computes than the costs say, because its network is another one.
    """
    devices = place.devices
    steps, per_device = workload.steps(devices), workload.per_device(devices)
    computing_s = factor * (costs.step_s + per_device * costs.sample_s)
    waiting_s = computing_s * costs.waiting_share * log2(devices)
    reducing_s = all_reduce_s(costs, place)
    sample_s = reading_s(costs, load)
    input_s = max(0.0, per_device * sample_s - computing_s - waiting_s - reducing_s)
    return Terms(
        computing_s=steps * computing_s,
        waiting_s=steps * waiting_s,
        all_reduce_s=steps * reducing_s,
        input_s=steps * input_s,
        validation_s=workload.validated(devices) * max(factor * costs.validation_sample_s, sample_s),
        fixed_s=costs.epoch_s,
        checkpoint_s=costs.checkpoint_s,
    )


def epoch_s(costs: Costs, workload: Workload, place: Place, load: Load, factor: float = 1.0) -> float:
    """Return the seconds of an epoch, see `epoch_terms`."""
    return epoch_terms(costs, workload, place, load, factor).total_s


def start_s(costs: Costs, devices: int) -> float:
    """Return the seconds before the first epoch of a trial on so many devices."""
    return costs.start_s + costs.start_per_device_s * (devices - 1)


def restart_s(costs: Costs, devices: int) -> float:
    """Return the seconds that a trial loses when it goes on with so many devices."""
    return costs.restart_s + costs.start_per_device_s * (devices - 1)


def full_load(nodes: Sequence[int]) -> Load:
    """Return the load where every device of a cluster reads."""
    return Load(sum(nodes), max(nodes))


def compact_place(devices: int, nodes: Sequence[int]) -> Place:
    """Return a place of so many devices, on as few of the nodes as possible.

    >>> compact_place(6, (4, 4)).counts
    ((0, 4), (1, 2))
    """
    counts, left = [], devices
    for node, available in sorted(enumerate(nodes), key=lambda item: (-item[1], item[0])):
        if left:
            counts.append((node, min(available, left)))
            left -= counts[-1][1]
    return Place(tuple(sorted(counts)))


@lru_cache(maxsize=256)
def speeds(costs: Costs, workload: Workload, nodes: tuple[int, ...], sizes: tuple[int, ...]) -> Speeds:
    """Return how many times faster an epoch is on each of the sizes than on one device, while all devices read.

    >>> speeds(Costs(sample_s=1.0), Workload(8, 0, batch_size=4), (2, 2), (1, 2, 4)).measured
    {1: 1.0, 2: 2.0, 4: 4.0}
    """
    load = full_load(nodes)
    single_s = epoch_s(costs, workload, compact_place(1, nodes), load)
    if not single_s:
        return Speeds(dict.fromkeys(sizes, 1.0))
    return Speeds({size: single_s / epoch_s(costs, workload, compact_place(size, nodes), load) for size in sizes})


def load_of(place: Place, busy: Counter[int] | Sequence[int], total: int) -> Load:
    """Return the load of a training's place, where `busy` has how many devices of each node read."""
    return Load(total, max(busy[node] for node, _ in place.counts))
