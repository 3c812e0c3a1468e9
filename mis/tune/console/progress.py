"""How far a search has come: its trials, the best of them, and the time that is left."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heapreplace
from math import inf, isfinite
from statistics import fmean

from mis.params.base import Scalar

RUNNING = "running"
INTERRUPTED = "interrupted"
"""The state of a trial that still ran when the search was left; resumed, it goes on."""


@dataclass(frozen=True)
class Row:
    """What is known of one trial.

    Attributes:
        name: Its number as it is shown, e.g. "003".
        values: What is searched and what it has of it, by dotted name.
        state: `running`, `interrupted`, or what became of it.
        epochs: How many have ended.
        dice: After the last of them, in [0, 1] or NaN; None before the first.
        best: The highest so far.
        seconds: From its start to its end; 0 while it runs.
        note: Why it failed.
        epoch_s: Seconds of its last epoch; None if none of them ended in this process.
        heard_at: Clock in seconds at its last word: its start or the end of an epoch.
    """

    name: str
    values: Mapping[str, Scalar]
    state: str = RUNNING
    epochs: int = 0
    dice: float | None = None
    best: float | None = None
    seconds: float = 0.0
    note: str = ""
    epoch_s: float | None = None
    heard_at: float = 0.0

    @property
    def score(self) -> float:
        """What trials are compared by: the best Dice, minus infinity if it is none or NaN."""
        return self.best if self.best is not None and isfinite(self.best) else -inf


@dataclass(frozen=True)
class Progress:
    """A search at one moment. It never changes: a thread that shows it needs no lock.

    Attributes:
        study: The search's name.
        total: Trials that it will have, those of earlier processes included; None if nobody knows.
        concurrent: How many run at once.
        epochs: The most that a trial has.
        begun_at: Clock in seconds at the start of this process's part of it.
        ends_at: Clock at which its budget is spent; infinity without one.
        rows: Its trials by name, in the order of their starts.
        over: Whether it has come to its end, of its own or not.
    """

    study: str
    total: int | None
    concurrent: int
    epochs: int
    begun_at: float
    ends_at: float
    rows: Mapping[str, Row]
    over: bool = False

    def put(self, row: Row) -> "Progress":
        """Return the search with a trial's row in place of the one of this name, if there is one."""
        return replace(self, rows={**self.rows, row.name: row})

    def leave(self) -> "Progress":
        """Return the search as it is left: what still runs is interrupted."""
        rows = [replace(row, state=INTERRUPTED) if row.state == RUNNING else row for row in self.rows.values()]
        return replace(self, rows={row.name: row for row in rows}, over=True)

    @property
    def running(self) -> list[Row]:
        """The trials that run, in the order of their starts."""
        return self._in(RUNNING)

    @property
    def interrupted(self) -> list[Row]:
        """The trials that were left while they ran."""
        return self._in(INTERRUPTED)

    @property
    def ended(self) -> list[Row]:
        """The trials that have ended, best first, the earlier of equals first."""
        rows = [row for row in self.rows.values() if row.state not in (RUNNING, INTERRUPTED)]
        return sorted(rows, key=lambda row: -row.score)

    @property
    def best(self) -> Row | None:
        """The trial with the best Dice, running or not; None if there is no Dice yet."""
        row = max(self.rows.values(), key=lambda row: row.score, default=None)
        return None if row is None or row.score == -inf else row

    def seconds_left(self, now: float) -> float | None:
        """Estimate the seconds to the end of the search.

        Trials that are still to begin take the mean of those that have ended in this process, early
        or not; the running ones go on to their last epoch, each epoch as long as its last one. Each
        begins as soon as one of the `concurrent` places is free. A budget ends the search earlier.

        Args:
            now: The clock, in seconds.

        Returns:
            None before the first epoch has ended, when nothing is left, and if neither the number of
            trials nor a budget is known.
        """
        mean = self._mean_seconds()
        if mean is None or self.over:
            return None
        left = max(0.0, self.ends_at - now)
        if self.total is not None:
            rest = [self._rest(row, mean, now) for row in self.running]
            to_begin = max(0, self.total - len(self.rows))
            if not rest and not to_begin:
                return None
            left = min(left, _makespan([*rest, *[mean] * to_begin], self.concurrent))
        return left if isfinite(left) else None

    def _mean_seconds(self) -> float | None:
        """Return the mean seconds of a trial: of ended ones, or before there is any, as the running ones promise.

        One that failed before its first epoch tells nothing of how long a trial takes.
        """
        heard = [row for row in self.rows.values() if row.epoch_s is not None]
        ended = [row.seconds for row in heard if row.state != RUNNING]
        promised = [self.epochs * row.epoch_s for row in heard if row.epoch_s is not None]
        return fmean(ended or promised) if heard else None

    def _rest(self, row: Row, mean: float, now: float) -> float:
        whole = mean if row.epoch_s is None else (self.epochs - row.epochs) * row.epoch_s
        return max(0.0, whole - (now - row.heard_at))

    def _in(self, state: str) -> list[Row]:
        return [row for row in self.rows.values() if row.state == state]


def _makespan(durations: Iterable[float], places: int) -> float:
    """Return when the last ends of what begins one after another, each in the place that is free first.

    >>> _makespan([30.0, 10.0, 40.0, 40.0], places=2)
    70.0
    """
    free_at = [0.0] * places
    for duration in durations:
        heapreplace(free_at, free_at[0] + duration)
    return max(free_at)
