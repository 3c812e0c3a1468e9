"""What Ray Tune reports of a study, handed to the study's monitor."""

from typing import Any

from ray import tune

from mis.tune.ray.errors import is_out_of_memory, reason_of
from mis.tune.ray.messages import ATTEMPT, WORKED_S, suggested_trial
from mis.tune.study.budget import Budget
from mis.tune.study.monitor import StudyMonitor


class BudgetStopper(tune.Stopper):  # type: ignore[misc]  # Ray's classes are Any here
    """Stops all trials when the study's budget is reached."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no trial is stopped without the others."""
        return False

    def stop_all(self) -> bool:
        """Return whether the budget is reached."""
        return self.budget.is_reached


class MonitorCallback(tune.Callback):  # type: ignore[misc]
    """Translates Ray Tune's events; Ray's trials have names of Ray's, ours have numbers."""

    def __init__(self, monitor: StudyMonitor) -> None:
        self.monitor = monitor
        self.numbers: dict[str, int] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its callbacks with its own state."""
        return {}

    def _number(self, trial: Any) -> int:
        """Return a trial's number, and begin it: its process may have died before Ray Tune has called it started.

        In a population the number that Ray hands over later is that of the donor: the first one counts.
        """
        if trial.trial_id not in self.numbers:
            suggested = suggested_trial(trial.config)
            self.numbers[trial.trial_id] = suggested.number
            self.monitor.begin(suggested)
        return self.numbers[trial.trial_id]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Begin a trial."""
        self._number(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        """Hand over an epoch."""
        number = self._number(trial)
        self.monitor.epoch_ended(number, result, result.get(ATTEMPT, ""), result.get(WORKED_S, 0.0))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Hand over that a trial starts again."""
        number, reason = self._number(trial), reason_of(trial)
        self.monitor.restarted(number, reason, out_of_memory=is_out_of_memory(reason))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Hand over that a trial has ended."""
        if trial.trial_id in self.numbers:
            self.monitor.ended(self.numbers[trial.trial_id])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Hand over that a trial has failed: Ray calls this once its restarts are used up."""
        self.monitor.ended(self._number(trial), reason_of(trial))
