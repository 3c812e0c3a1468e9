"""Ray Tune's side of who is stopped early or changed: it asks the study, which remembers what it has decided."""

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from mis.tune.epochs import EPOCH
from mis.tune.ray.messages import FINISHED, suggested_trial
from mis.tune.study.store import StudyStore
from mis.tune.trial import Verdict

Judge = Callable[[int, Mapping[str, Any]], Verdict]
"""Returns what becomes of a trial, by its number, after the epoch that a report is of: `StudyStore.judge`."""

WAITING = (RayTrial.PENDING, RayTrial.PAUSED)
"""Where a trial is that could run."""


def make_scheduler(store: StudyStore) -> FIFOScheduler:
    """Return Ray's scheduler for a study."""
    if store.is_population:
        return PopulationScheduler(store.judge, store.tune.scheduler.interval_epochs)
    return StudyScheduler(store.judge)


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray's classes are Any here
    """Stops the trials that the study says are to be stopped."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its schedulers with its own state."""
        return {}

    def on_trial_result(self, controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Return what becomes of a trial after an epoch."""
        verdict = self.judge(suggested_trial(trial.config).number, result)
        if result.get(FINISHED):  # it ends by itself
            return str(TrialScheduler.CONTINUE)
        return str(
            {
                Verdict.GO_ON: TrialScheduler.CONTINUE,
                Verdict.STOP: TrialScheduler.STOP,
                Verdict.CHANGE: TrialScheduler.PAUSE,  # it takes over weights and values when it starts again
            }[verdict]
        )


class PopulationScheduler(StudyScheduler):
    """Lets the trials of a population take turns, so that they are compared after as many epochs.

    Attributes:
        interval_epochs: Epochs after which a trial waits where others do.
        epochs: How many epochs each trial has had, by Ray's name of it.
    """

    def __init__(self, judge: Judge, interval_epochs: int) -> None:
        super().__init__(judge)
        self.interval_epochs = interval_epochs
        self.epochs: dict[str, int] = {}

    def on_trial_result(self, controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Return what becomes of a trial after an epoch."""
        decision = super().on_trial_result(controller, trial, result)
        epoch = self.epochs[trial.trial_id] = int(result[EPOCH])
        if decision != TrialScheduler.CONTINUE or result.get(FINISHED) or epoch % self.interval_epochs:
            return decision
        others_wait = any(other.status in WAITING for other in controller.get_trials() if other is not trial)
        return str(TrialScheduler.PAUSE if others_wait else TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, controller: Any, **info: Any) -> RayTrial | None:
        """Return the trial that waits and has had the fewest epochs."""
        waiting = [trial for trial in controller.get_trials() if trial.status in WAITING]
        return min(waiting, key=self._turn, default=None)

    def _turn(self, trial: RayTrial) -> tuple[int, int]:
        return self.epochs.get(trial.trial_id, 0), suggested_trial(trial.config).number
