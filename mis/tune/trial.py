"""A trial of a study: what it is given, how far it has come, and what becomes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf, isfinite
from pathlib import Path
from statistics import median
from typing import Any

from mis.errors import MisError
from mis.params.base import Scalar
from mis.track.names import DEVICES, EPOCH_S, MODEL_PARAMETERS, TOTAL_S, TRACED_S, VAL_DICE, VAL_PREFIX
from mis.train.checkpoint import History, best_epoch

FEW_EPOCHS = 3
"""From so many epochs on, their median is that of one that has not traced the network."""

FOLD = "train.fold"
"""What the trials of a study differ in where they are the folds of a training."""

Values = Mapping[str, Scalar]
"""What a trial has in place of params.yaml, by dotted name."""

Metrics = Mapping[str, float]
"""The metrics of one epoch, by name."""


STATE_ATTRIBUTE = "state"
"""The attribute of Optuna's trial that says what became of ours."""


class TrialState(StrEnum):
    """Where a trial is. Its text stands in files, in MLflow's tag `mis.state` and in tables."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It ran when its study was left, and goes on when that is resumed."""
    COMPLETED = "completed"
    """It has had all its epochs, or as many without a better Dice as `train.patience` allows."""
    STOPPED = "stopped"
    """The scheduler, or the end of the budget, has stopped it."""
    DIVERGED = "diverged"
    """Its loss is no longer a finite number."""
    FAILED = "failed"
    """It raised an error, or its process was lost more often than `tune.max_failures` allows."""

    @property
    def has_ended(self) -> bool:
        """Whether the trial does not go on."""
        return self not in (TrialState.RUNNING, TrialState.INTERRUPTED)


class Verdict(StrEnum):
    """What becomes of a trial after an epoch."""

    GO_ON = "go on"
    STOP = "stop"
    CHANGE = "change"
    """In a population: it goes on from another trial's weights, with other values."""


@dataclass(frozen=True)
class Trial:
    """One trial, at one moment.

    Attributes:
        number: Its place in the order of the trials' starts, from 0.
        values: What it has in place of params.yaml; what a search has changed in the middle of it included.
        state: Where it is.
        epochs: How many have ended.
        last: The metrics of the last of them.
        best: The metrics of the epoch with the best validation Dice, the first of equals.
        history: The metrics of every epoch; empty where they are not needed.
        elapsed_s: Seconds that its processes have worked on it: set-up included, pauses not. Of a trial that was
            interrupted, the seconds of its epochs until then, and all since.
        error: Why it failed, in one line.
        best_model: The file of the model after its best epoch; None if it has had no epoch, or was not kept.
    """

    number: int
    values: Values
    state: TrialState = TrialState.RUNNING
    epochs: int = 0
    last: Metrics = field(default_factory=dict)
    best: Metrics = field(default_factory=dict)
    history: Sequence[Metrics] = field(default=(), repr=False)
    elapsed_s: float = 0.0
    error: str = ""
    best_model: Path | None = None

    @property
    def name(self) -> str:
        """The number as it is shown, e.g. "003"."""
        return trial_name(self.number)

    @property
    def dice(self) -> float | None:
        """The validation Dice after the last epoch, in [0, 1] or NaN; None before the first epoch."""
        return self.last.get(VAL_DICE)

    @property
    def best_dice(self) -> float | None:
        """The best validation Dice; None before the first epoch."""
        return self.best.get(VAL_DICE)

    @property
    def score(self) -> float:
        """What trials are ranked by: the best validation Dice, minus infinity where there is none or it is NaN."""
        return self.best_dice if self.best_dice is not None and isfinite(self.best_dice) else -inf

    @property
    def costs(self) -> dict[str, float]:
        """What may be made small beside the Dice, by the name of the objective; empty before the first epoch."""
        seconds = untraced_s(self.history or [self.last])
        weights = self.last.get(MODEL_PARAMETERS)
        known = {"seconds": seconds, "parameters": weights}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def mean_devices(self) -> float:
        """How many devices it was spread over, as the mean over the time of its epochs; 0 where that is not known."""
        timed = [(epoch[EPOCH_S], epoch[DEVICES]) for epoch in self.history if {EPOCH_S, DEVICES} <= epoch.keys()]
        elapsed_s = sum(seconds for seconds, _ in timed)
        return sum(seconds * devices for seconds, devices in timed) / elapsed_s if elapsed_s else 0.0

    def with_history(self, history: History) -> "Trial":
        """Return the trial after these epochs."""
        if not history:
            return replace(self, epochs=0, last={}, best={}, history=())
        best = history[best_epoch(history) - 1]
        return replace(self, epochs=len(history), last=history[-1], best=best, history=history)

    def after(self, epoch: int, metrics: Metrics) -> "Trial":
        """Return the trial after one more epoch, without its history; an epoch that it has had changes nothing."""
        if epoch <= self.epochs:
            return self
        better = metrics[VAL_DICE] > self.score or not self.best
        return replace(self, epochs=epoch, last=metrics, best=metrics if better else self.best, history=())

    def without_history(self) -> "Trial":
        """Return the trial without the metrics of each epoch, which take kilobytes: for what is kept of many trials."""
        return replace(self, history=())

    def row(self) -> dict[str, object]:
        """Return the trial's line of a table."""
        figures = {name: round(value, 6) for name, value in self.best.items() if name.startswith(VAL_PREFIX)}
        costs = {name: round(value) if name == "parameters" else round(value, 2) for name, value in self.costs.items()}
        return {
            "trial": self.name,
            "state": str(self.state),
            "epochs": self.epochs,
            **figures,
            **costs,
            "elapsed_s": round(self.elapsed_s, 2),
            **self.values,
            "error": self.error,
        }

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes; the model's file is not in it."""
        return {
            "number": self.number,
            "values": dict(self.values),
            "state": str(self.state),
            "history": list(self.history),
            "elapsed_s": self.elapsed_s,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Trial":
        """Return the trial that `to_json` has written."""
        trial = cls(
            number=content["number"],
            values=content["values"],
            state=TrialState(content["state"]),
            elapsed_s=content["elapsed_s"],
            error=content.get("error", ""),
        )
        return trial.with_history(content["history"])


def untraced_s(history: Sequence[Metrics]) -> float | None:
    """Return the seconds of a training's epochs as if none had traced the network; None where they are not known.

    Of the trials of a process only the first traces it, and those that are started again: what a trial costs must not
    depend on which one it was.

    >>> untraced_s([{"time/epoch_s": 9.0}, {"time/epoch_s": 2.0}, {"time/epoch_s": 2.2}])
    6.6
    >>> untraced_s([{"time/epoch_s": 9.0, "time/traced_s": 7.0}])
    2.0
    """
    epochs_s = [epoch[EPOCH_S] for epoch in history if EPOCH_S in epoch]
    if not epochs_s:
        return history[-1].get(TOTAL_S) if history else None
    if len(epochs_s) < FEW_EPOCHS:
        return len(epochs_s) * min(epoch[EPOCH_S] - epoch.get(TRACED_S, 0.0) for epoch in history if EPOCH_S in epoch)
    return round(len(epochs_s) * median(epochs_s), 6)


def trial_name(number: int) -> str:
    """Return a trial's number as it is shown.

    >>> trial_name(3)
    '003'
    """
    return f"{number:03d}"


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have had an epoch, the best validation Dice first, the earlier of equals first."""
    return sorted((trial for trial in trials if trial.epochs), key=lambda trial: (-trial.score, trial.number))


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the best validation Dice, the earliest of equals; None if none has one."""
    scored = [trial for trial in trials if isfinite(trial.score)]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best validation Dice, the earliest of equals.

    Raises:
        MisError: No trial finished an epoch.
    """
    if not (scored := ranked(trials)):
        errors = [trial.error for trial in trials if trial.error]
        reason = f"the first error: {errors[0]}" if errors else "because the study's budget was reached before"
        raise MisError("at least one trial must finish an epoch", got=f"{len(trials)} that did not, {reason}")
    return scored[0]
