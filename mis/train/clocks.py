"""By how much the clock of a node differs from that of this process, from questions and answers over the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mis.machine.diagnosis import Diagnosis

MOST_S = 5.0
"""Seconds by which clocks may differ.

Nothing is computed from the time of another node. But the times of metrics in MLflow, and which session of a run is the
later one (`mis.track.sessions`), come from the clock of the node that has the session; a session takes longer than this
to begin, so that a smaller difference confuses none. A clock that is kept by NTP is right to some milliseconds.
"""


@dataclass(frozen=True)
class Reading:
    """A node's time, between a question and its answer.

    Attributes:
        asked_s: The time here when the node was asked (s since 1970).
        node_s: The time on the node, at some moment in between.
        answered_s: The time here when the answer was there.
    """

    asked_s: float
    node_s: float
    answered_s: float


@dataclass(frozen=True)
class Offset:
    """By how much a node's clock is ahead of that of this process, negative where it is behind (s).

    Attributes:
        low_s: It is at least this.
        high_s: It is at most this.
    """

    low_s: float
    high_s: float

    @property
    def least_s(self) -> float:
        """What the clocks differ by at least, with its sign; 0 where they may be equal."""
        return self.low_s if self.low_s > 0 else min(self.high_s, 0.0)


def offset(readings: Sequence[Reading]) -> Offset:
    """Return between which bounds a clock's offset is, as all readings of it have it.

    The node has read its clock after it was asked and before its answer came: however long either took, its offset is
    at most what it had read minus the time of the question, and at least that minus the time of the answer.

    >>> offset([Reading(100.0, 107.0, 102.0), Reading(200.0, 206.5, 200.5)])
    Offset(low_s=6.0, high_s=6.5)
    """
    return Offset(
        max(reading.node_s - reading.answered_s for reading in readings),
        min(reading.node_s - reading.asked_s for reading in readings),
    )


def judge_clocks(offsets: Mapping[str, Offset], most_s: float = MOST_S) -> list[Diagnosis]:
    """Return which clocks differ by more than they may; nothing where none is known to.

    Args:
        offsets: By what the nodes are called.
        most_s: What they may differ by (s).
    """
    return [
        Diagnosis(
            "warning",
            "clock",
            f"the clock of {name} is {abs(seconds.least_s):.1f} s {'ahead' if seconds.least_s > 0 else 'behind'} "
            f"(more than {most_s:g} s confuse the order of a run's sessions in MLflow)",
            "let NTP keep the time on all nodes (timedatectl set-ntp true)",
        )
        for name, seconds in offsets.items()
        if abs(seconds.least_s) > most_s
    ]
