"""Which trial has which devices: a pure function from what is known of the trials to an assignment.

It serves a search (`tune.allocation`), the comparison of the modes and their simulation alike. A trial with a single
size is run on so many devices or waits; one with several sizes is elastic.

The devices are handed out by water-filling. Each trial that waits gets its smallest share, if need be from a trial
that has more than its smallest; then what is idle goes to the trial with the most predicted time left, which levels the
ends of all trials, as long as one gains more than a restart costs. What a trial has it keeps otherwise: a change costs
a restart.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, log2

MARGIN_S = 1e-6
"""Seconds by which a gain must exceed the restart, so that rounding decides nothing."""


@dataclass(frozen=True)
class Place:
    """The devices that a trial has, by node.

    Attributes:
        counts: Pairs of a node's number and how many of its devices, at least one, in the order of the nodes.
    """

    counts: tuple[tuple[int, int], ...]

    @property
    def devices(self) -> int:
        """How many devices these are."""
        return sum(count for _, count in self.counts)

    @property
    def devices_per_process(self) -> int:
        """How many of them each process of the trial has: all have as many, and each has those of one node.

        >>> Place(((0, 4), (1, 2))).devices_per_process
        2
        """
        return gcd(*(count for _, count in self.counts))

    @property
    def process_nodes(self) -> tuple[int, ...]:
        """The number of the node of each process.

        >>> Place(((0, 4), (1, 2))).process_nodes
        (0, 0, 1)
        """
        return tuple(node for node, count in self.counts for _ in range(count // self.devices_per_process))


@dataclass(frozen=True)
class Speeds:
    """How many times faster a training is on several devices than on one.

    Attributes:
        measured: The speed-up by the number of devices, for those that were measured.
        per_doubling: The efficiency of each doubling beyond the largest number that was measured: 1 is ideal.

    >>> speeds = Speeds({2: 1.8}, per_doubling=0.5)
    >>> [speeds(devices) for devices in (1, 2, 4)]
    [1.0, 1.8, 1.8]
    """

    measured: Mapping[int, float] = field(default_factory=dict)
    per_doubling: float = 0.9

    def __call__(self, devices: int) -> float:
        """Return the speed-up on so many devices."""
        known = {1: 1.0, **self.measured}
        if devices in known:
            return known[devices]
        nearest = max(count for count in known if count < devices)
        return float(known[nearest] * (2 * self.per_doubling) ** log2(devices / nearest))


@dataclass(frozen=True)
class Demand:
    """A trial that runs or waits.

    Attributes:
        trial: Its number.
        left_s: The predicted seconds that it would still take on one device.
        sizes: The numbers of devices that it can be spread over, rising.
        place: What it has now; None where it waits.
    """

    trial: int
    left_s: float
    sizes: tuple[int, ...]
    place: Place | None = None


@dataclass(frozen=True)
class Cluster:
    """What trials are run on.

    Attributes:
        nodes: How many devices each node has.
        across_nodes: Whether a trial can be spread over several nodes.
    """

    nodes: tuple[int, ...]
    across_nodes: bool = True


def assign(demands: Sequence[Demand], cluster: Cluster, speeds: Speeds, restart_s: float) -> dict[int, Place]:
    """Return the devices of each trial that is to run; a trial that is not among them waits.

    Args:
        demands: The trials, those that wait in the order in which they are to begin.
        cluster: The nodes with their devices.
        speeds: How much faster a trial is on several devices.
        restart_s: Seconds that a trial loses when its devices change.
    """
    filling = _Filling(demands, cluster, speeds, restart_s)
    for demand in demands:
        if demand.place is None and not filling.begin(demand):
            return filling.places  # what is idle is kept for the first that waits
    while filling.grow():
        pass
    return filling.places


class _Filling:
    """An assignment on its way from what is to what shall be.

    Attributes:
        places: The devices of each trial, as assigned so far.
        idle: How many devices of each node no trial has.
        unused: How many devices are in no trial's place: the idle ones, and those that a trial which goes to another
            node keeps until then.
    """

    def __init__(self, demands: Sequence[Demand], cluster: Cluster, speeds: Speeds, restart_s: float) -> None:
        self.cluster = cluster
        self.speeds = speeds
        self.restart_s = restart_s
        self.demands = {demand.trial: demand for demand in demands}
        self.idle = list(cluster.nodes)
        self.unused = sum(cluster.nodes)
        self.places: dict[int, Place] = {}
        for demand in demands:
            if demand.place is not None:
                self._give(demand.trial, demand.place)

    def begin(self, demand: Demand) -> bool:
        """Give a trial that waits its smallest share, if need be of what others have beyond theirs."""
        before = list(self.idle), self.unused, dict(self.places)
        while (place := self._find(demand.sizes[0], self.idle)) is None:
            if not self._shrink_one():
                self.idle, self.unused, self.places = before  # what others would give does not suffice: they keep it
                return False
        self._give(demand.trial, place)
        return True

    def grow(self) -> bool:
        """Hand idle devices to the trials with the most time left; return whether any trial got some."""
        grown = False
        if not self.unused:
            return grown
        waiting = [(-self._left_s(trial, place), trial) for trial, place in self.places.items()]
        heapq.heapify(waiting)
        while waiting and self.unused:
            _, trial = heapq.heappop(waiting)
            if (place := self._larger(trial)) is not None:
                self._take(trial)
                self._give(trial, place)
                heapq.heappush(waiting, (-self._left_s(trial, place), trial))
                grown = True
        return grown

    def _larger(self, trial: int) -> Place | None:
        """Return the next larger place by which a trial gains more than a restart costs."""
        place = self.places[trial]
        sizes = self.demands[trial].sizes
        most = place.devices + self.unused
        if place.devices == sizes[-1]:
            return None
        now_s = self._left_s(trial, place)
        # Where it would be takes longer to find than whether it gains: most that are asked here do not.
        gaining = [
            size
            for size in sizes
            if place.devices < size <= most and self._least_left_s(trial, size) < now_s - MARGIN_S
        ]
        if not gaining:
            return None
        available = self._available_to(trial, place)
        found = (self._find(size, available, near=place) for size in gaining)
        return next((larger for larger in found if larger and self._left_s(trial, larger) < now_s - MARGIN_S), None)

    def _shrink_one(self) -> bool:
        """Take devices of the trial that ends first even without them; return whether any trial has some to spare."""
        smaller = {trial: place for trial in self.places if (place := self._smaller(trial)) is not None}
        if not smaller:
            return False
        trial = min(smaller, key=lambda trial: (self._left_s(trial, smaller[trial]), trial))
        self._take(trial)
        self._give(trial, smaller[trial])
        return True

    def _smaller(self, trial: int) -> Place | None:
        """Return the next smaller place of a trial, part of what it has."""
        place = self.places[trial]
        sizes = [size for size in self.demands[trial].sizes if size < place.devices]
        return self._find(sizes[-1], dict(place.counts)) if sizes else None

    def _left_s(self, trial: int, place: Place) -> float:
        """Return the seconds that a trial has left on these devices, a restart included where they change."""
        demand = self.demands[trial]
        restarts = demand.place is not None and demand.place != place
        return demand.left_s / self.speeds(place.devices) + (self.restart_s if restarts else 0.0)

    def _least_left_s(self, trial: int, size: int) -> float:
        """Return the seconds that a trial has left on so many devices, wherever they are: at most `_left_s`."""
        demand = self.demands[trial]
        restarts = demand.place is not None and demand.place.devices != size
        return demand.left_s / self.speeds(size) + (self.restart_s if restarts else 0.0)

    def _available_to(self, trial: int, place: Place) -> list[int]:
        """Return the devices of each node that a trial could have: the idle ones, and its own."""
        available = list(self.idle)
        for node, count in self._held(trial, place):
            available[node] += count
        return available

    def _find(self, size: int, available: Mapping[int, int] | Sequence[int], near: Place | None = None) -> Place | None:
        """Return a place of so many devices: on the node that it fits best, else over as few nodes as possible."""
        counts = dict(_numbered(available))
        own = {node for node, _ in near.counts} if near is not None else set()
        fits = [node for node, count in counts.items() if count >= size]
        if fits:
            return Place(((min(fits, key=lambda node: (node not in own, counts[node], node)), size),))
        if not self.cluster.across_nodes or sum(counts.values()) < size:
            return None
        taken, left = [], size
        for node in sorted(counts, key=lambda node: (-counts[node], node not in own, node)):
            taken.append((node, min(counts[node], left)))
            left -= taken[-1][1]
            if not left:
                break
        return Place(tuple(sorted(taken)))

    def _give(self, trial: int, place: Place) -> None:
        self.places[trial] = place
        self.unused -= place.devices
        for node, count in self._held(trial, place):
            self.idle[node] -= count

    def _take(self, trial: int) -> None:
        place = self.places.pop(trial)
        self.unused += place.devices
        for node, count in self._held(trial, place):
            self.idle[node] += count

    def _held(self, trial: int, place: Place) -> Iterable[tuple[int, int]]:
        """Return the devices of each node that no other trial can have while this one is to have a place.

        A trial that is to have more keeps what it has until it gets them: otherwise two trials could wait for each
        other's devices, and both for ever.
        """
        before = self.demands[trial].place
        if before is None or before.counts == place.counts or place.devices < before.devices:
            return place.counts
        now, then = dict(before.counts), dict(place.counts)
        return [(node, max(now.get(node, 0), then.get(node, 0))) for node in now | then]


def _numbered(available: Mapping[int, int] | Sequence[int]) -> Iterator[tuple[int, int]]:
    return iter(available.items() if isinstance(available, Mapping) else enumerate(available))


def sizes_for(batch_size: int, most: int) -> tuple[int, ...]:
    """Return the numbers of devices, up to `most`, among which a batch is divided evenly.

    >>> sizes_for(12, most=8)
    (1, 2, 3, 4, 6)
    """
    return tuple(size for size in range(1, min(batch_size, most) + 1) if batch_size % size == 0)
