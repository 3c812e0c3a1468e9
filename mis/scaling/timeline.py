"""Which trial ran where and when: measured, emulated or simulated, it is the same table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mis.tune.allocation import Place


@dataclass(frozen=True)
class Stretch:
    """A time in which a trial had the same devices.

    Attributes:
        trial: The trial's place in the list of trials, from 0.
        place: Its devices.
        begin_s: When it got them, in seconds after the start of the whole; a restart's set-up is part of the stretch.
        end_s: When it gave them back.
        epochs: How many epochs ended in this time.
    """

    trial: int
    place: Place
    begin_s: float
    end_s: float
    epochs: int


@dataclass(frozen=True)
class Timeline:
    """A list of trials on a cluster, from the first one's start to the last one's end.

    Attributes:
        nodes: How many devices each node has.
        stretches: The stretches, in the order of their beginnings.
    """

    nodes: tuple[int, ...]
    stretches: tuple[Stretch, ...]

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return sum(self.nodes)

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first beginning to the last end: the makespan."""
        begin_s = min((stretch.begin_s for stretch in self.stretches), default=0.0)
        return max((stretch.end_s for stretch in self.stretches), default=0.0) - begin_s

    @property
    def device_s(self) -> float:
        """Seconds in which devices had a trial, added up over the devices."""
        return sum(stretch.place.devices * (stretch.end_s - stretch.begin_s) for stretch in self.stretches)

    @property
    def utilisation(self) -> float:
        """The part of the devices' time in which they had a trial, from 0 to 1."""
        return self.device_s / (self.devices * self.elapsed_s) if self.elapsed_s else 0.0

    def busy(self) -> list[tuple[float, int]]:
        """Return how many devices had a trial from each moment on at which that changes, as (seconds, devices)."""
        changes = sorted(
            change
            for stretch in self.stretches
            for change in ((stretch.begin_s, stretch.place.devices), (stretch.end_s, -stretch.place.devices))
        )
        steps: list[tuple[float, int]] = []
        count = 0
        for moment_s, change in changes:
            count += change
            if steps and steps[-1][0] == moment_s:
                steps.pop()
            steps.append((moment_s, count))
        return [step for before, step in pairwise([(float("-inf"), -1), *steps]) if step[1] != before[1]]

    def lanes(self) -> list[tuple[Stretch, tuple[int, ...]]]:
        """Return each stretch with its devices, numbered from 0 over all nodes, for a picture.

        A trial has devices of a node, not certain ones: it is drawn on those that it had before where it can be, else
        on the first that are free.
        """
        first = [sum(self.nodes[:node]) for node in range(len(self.nodes))]
        free_from_s = [float("-inf")] * self.devices
        last: dict[int, tuple[int, ...]] = {}
        drawn = []
        for stretch in sorted(self.stretches, key=lambda stretch: (stretch.begin_s, stretch.trial)):
            lanes: list[int] = []
            for node, count in stretch.place.counts:
                of_node = range(first[node], first[node] + self.nodes[node])
                lanes += _most_free(of_node, count, free_from_s, stretch.begin_s, last.get(stretch.trial, ()))
            for lane in lanes:
                free_from_s[lane] = stretch.end_s
            last[stretch.trial] = tuple(sorted(lanes))
            drawn.append((stretch, last[stretch.trial]))
        return drawn


def _most_free(
    of_node: Iterable[int], count: int, free_from_s: Sequence[float], begin_s: float, before: Sequence[int]
) -> list[int]:
    """Return so many devices of a node: those that are free at `begin_s` first, of them those that it had before."""
    return sorted(of_node, key=lambda lane: (max(0.0, free_from_s[lane] - begin_s), lane not in before, lane))[:count]
