"""Ray Tune's side of who is stopped early or changed: it asks the study, which remembers what it has decided."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from mis.tune.epochs import EPOCH
from mis.tune.ray.messages import FINISHED, epochs_of, note_epochs, suggested_trial
from mis.tune.ray.placing import fixed_request
from mis.tune.ray.stall import Processes
from mis.tune.study.monitor import StudyMonitor
from mis.tune.trial import Verdict

WAITING = (RayTrial.PENDING, RayTrial.PAUSED)
"""Where a trial is that could run."""


def make_scheduler(monitor: StudyMonitor, processes: Processes) -> "StudyScheduler":
    """Return Ray's scheduler for a study."""
    kind = PopulationScheduler if monitor.store.is_population else StudyScheduler
    return kind(monitor, processes)


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray's classes are Any here
    """Stops the trials that the study says are to be stopped, and keeps them away from nodes that are left out.

    Attributes:
        monitor: The study's monitor.
        processes: Is told of Ray Tune's controller.
    """

    def __init__(self, monitor: StudyMonitor, processes: Processes) -> None:
        super().__init__()
        self.monitor = monitor
        self.processes = processes

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its schedulers with its own state."""
        return {}

    def on_trial_add(self, controller: Any, trial: RayTrial, **info: Any) -> None:
        """Keep a trial that begins away from nodes that are left out."""
        super().on_trial_add(controller, trial, **info)
        self.processes.controller = controller
        self._keep_away(trial)

    def on_trial_error(self, controller: Any, trial: RayTrial, **info: Any) -> None:
        """Keep a trial that is tried again away from nodes that are left out."""
        super().on_trial_error(controller, trial, **info)
        if trial.status == RayTrial.ERROR:  # otherwise it has failed for good, and Ray calls this before it says so
            self._keep_away(trial)

    def _keep_away(self, trial: RayTrial) -> None:
        if self.monitor.bad_nodes.left_out:
            trial.update_resources(self.request())

    def request(self) -> tune.PlacementGroupFactory:
        """Return what Ray reserves for a trial with a fixed share."""
        return fixed_request(self.monitor.share, self.monitor.bad_nodes.left_out)

    def on_trial_result(self, controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Return what becomes of a trial after an epoch."""
        verdict = Verdict.GO_ON
        note_epochs(trial.config, int(result[EPOCH]))
        with self.monitor.budget.giving_up():
            verdict = self.monitor.store.judge(suggested_trial(trial.config).number, result)
        if result.get(FINISHED):  # it ends by itself
            return str(TrialScheduler.CONTINUE)
        return str(
            {
                Verdict.GO_ON: TrialScheduler.CONTINUE,
                Verdict.STOP: TrialScheduler.STOP,
                Verdict.CHANGE: TrialScheduler.PAUSE,  # it takes over weights and values when it starts again
            }[verdict]
        )

    def choose_trial_to_run(self, controller: Any, **info: Any) -> RayTrial | None:
        """Return the next trial that waits: one that begins before one that was paused, and the earlier one first.

        Ray's own looks at all trials that the search has had.
        """
        waiting = [trial for trial in controller.get_live_trials() if trial.status in WAITING]
        return min(waiting, key=self._turn, default=None)

    def _turn(self, trial: RayTrial) -> tuple[int, int]:
        return int(trial.status == RayTrial.PAUSED), suggested_trial(trial.config).number


class PopulationScheduler(StudyScheduler):
    """Lets the trials of a population take turns, so that they are compared after as many epochs."""

    @property
    def interval_epochs(self) -> int:
        """Epochs after which a trial waits where others do."""
        return self.monitor.store.tune.scheduler.interval_epochs

    def on_trial_result(self, controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Return what becomes of a trial after an epoch."""
        decision = super().on_trial_result(controller, trial, result)
        if decision != TrialScheduler.CONTINUE or result.get(FINISHED) or int(result[EPOCH]) % self.interval_epochs:
            return decision
        others_wait = any(other.status in WAITING for other in controller.get_live_trials() if other is not trial)
        return str(TrialScheduler.PAUSE if others_wait else TrialScheduler.CONTINUE)

    def _turn(self, trial: RayTrial) -> tuple[int, int]:
        """Let the trial come next that has had the fewest turns: a part of one, before a kill, is none."""
        return epochs_of(trial.config) // self.interval_epochs, suggested_trial(trial.config).number
