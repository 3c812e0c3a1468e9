"""How far a search has come: its trials, the best of them, and the time that is left."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heapreplace
from math import inf, isfinite
from statistics import fmean

from mis.tune.trial import Trial, TrialState


@dataclass(frozen=True)
class Heard:
    """When this process has heard of a trial last, and what of its duration.

    Attributes:
        at: The clock, in seconds, at its start or at the end of its last epoch.
        epoch_s: Seconds of its last epoch; None if none of them ended in this process.
    """

    at: float
    epoch_s: float | None = None


@dataclass(frozen=True)
class Progress:
    """A search at one moment. It never changes: a thread that shows it needs no lock.

    Attributes:
        study: The search's name.
        total: Trials that it will have, those of earlier sessions included; None if nobody knows.
        concurrent: How many run at once.
        epochs: The most epochs that a trial has.
        begun_at: The clock, in seconds, at the start of this session.
        ends_at: The clock at which the search's budget is reached; infinity without one.
        trials: Its trials by number, in the order of their starts.
        heard: Of each trial that this process has heard of, when and what.
        over: Whether the search has come to its end, of its own or not.
    """

    study: str
    total: int | None
    concurrent: int
    epochs: int
    begun_at: float
    ends_at: float
    trials: Mapping[int, Trial]
    heard: Mapping[int, Heard]
    over: bool = False

    def put(self, trial: Trial, heard: Heard) -> "Progress":
        """Return the search with a trial in place of what was known of it."""
        return replace(
            self,
            trials={**self.trials, trial.number: trial},
            heard={**self.heard, trial.number: heard},
        )

    def leave(self) -> "Progress":
        """Return the search as it is left: trials that still run are interrupted."""
        trials = {
            number: replace(trial, state=TrialState.INTERRUPTED) if trial.state is TrialState.RUNNING else trial
            for number, trial in self.trials.items()
        }
        return replace(self, trials=trials, over=True)

    @property
    def running(self) -> list[Trial]:
        """The trials that run, in the order of their starts."""
        return self._in(TrialState.RUNNING)

    @property
    def interrupted(self) -> list[Trial]:
        """The trials that were left while they ran."""
        return self._in(TrialState.INTERRUPTED)

    @property
    def ended(self) -> list[Trial]:
        """The trials that have ended, the best first, the earlier of equals first."""
        ended = [trial for trial in self.trials.values() if trial.state.has_ended]
        return sorted(ended, key=lambda trial: -trial.score)

    @property
    def best(self) -> Trial | None:
        """The trial with the best Dice, running or not; None if there is no Dice yet."""
        best = max(self.trials.values(), key=lambda trial: trial.score, default=None)
        return None if best is None or best.score == -inf else best

    def seconds_left(self, now: float) -> float | None:
        """Estimate the seconds to the end of the search.

        Trials that are still to begin take the mean of those that have ended in this session, early or not; the
        running ones go on to their last epoch, each epoch as long as its last one. Each begins as soon as one of the
        `concurrent` shares of the devices is free. A budget ends the search earlier.

        Args:
            now: The clock, in seconds.

        Returns:
            None before the first epoch has ended, when nothing is left, and if neither the number of trials nor a
            budget is known.
        """
        mean = self._mean_seconds()
        if mean is None or self.over:
            return None
        left = max(0.0, self.ends_at - now)
        if self.total is not None:
            rest = [self._rest(trial, mean, now) for trial in self.running]
            to_begin = max(0, self.total - len(self.trials))
            if not rest and not to_begin:
                return None
            left = min(left, _makespan([*rest, *[mean] * to_begin], self.concurrent))
        return left if isfinite(left) else None

    def _mean_seconds(self) -> float | None:
        """Return the mean seconds of a trial: of ended ones, or before there is any, as the running ones promise.

        One that failed before its first epoch tells nothing of how long a trial takes.
        """
        timed = [(self.trials[number], heard.epoch_s) for number, heard in self.heard.items()]
        ended = [trial.elapsed_s for trial, epoch_s in timed if trial.state.has_ended and epoch_s is not None]
        promised = [self.epochs * epoch_s for _, epoch_s in timed if epoch_s is not None]
        return fmean(ended or promised) if promised else None

    def _rest(self, trial: Trial, mean: float, now: float) -> float:
        heard = self.heard[trial.number]
        whole = mean if heard.epoch_s is None else (self.epochs - trial.epochs) * heard.epoch_s
        return max(0.0, whole - (now - heard.at))

    def _in(self, state: TrialState) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.state is state]


def _makespan(durations: Iterable[float], concurrent: int) -> float:
    """Return when the last ends of trials that begin one after another, each on the devices that are free first.

    >>> _makespan([30.0, 10.0, 40.0, 40.0], concurrent=2)
    70.0
    """
    free_at = [0.0] * concurrent
    for duration in durations:
        heapreplace(free_at, free_at[0] + duration)
    return max(free_at)
