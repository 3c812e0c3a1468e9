"""What Ray Tune reports of a study, handed to the study's monitor."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from mis.tune.ray.errors import disk_full_in, is_no_nodes_fault, is_out_of_memory, reason_of
from mis.tune.ray.messages import ATTEMPT, NODE, WORKED_S, suggested_trial
from mis.tune.ray.stall import Processes, StallWatch
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
        """Return whether the budget is reached, or the study is left."""
        return self.budget.is_reached or self.budget.given_up is not None


def _forget_metrics(trial: RayTrial) -> None:
    """Drop what Ray keeps of each metric of a trial that has ended, some 30 kB: nobody asks Ray for it."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


class MonitorCallback(tune.Callback):  # type: ignore[misc]
    """Translates Ray Tune's events; Ray's trials have names of Ray's, ours have numbers."""

    def __init__(self, monitor: StudyMonitor, processes: Processes) -> None:
        self.monitor = monitor
        self.processes = processes
        self.numbers: dict[str, int] = {}
        self.nodes: dict[str, str] = {}  # of the trials that have a process, by Ray's names of both
        self.stalls = StallWatch(monitor.store.tune.stall_s, processes, monitor.store.steps)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its callbacks with its own state."""
        return {}

    def _number(self, trial: Any) -> int:
        """Return a trial's number, and begin it: its process may have died before Ray Tune has called it started."""
        if trial.trial_id not in self.numbers:
            suggested = suggested_trial(trial.config)
            self.numbers[trial.trial_id] = suggested.number
            self.monitor.begin(suggested)
        return self.numbers[trial.trial_id]

    def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
        """Look whether a trial hangs."""
        if not self.stalls.is_due:
            return
        with self.monitor.budget.giving_up():
            # One that waits may have been given a process that another trial had, and that does not answer.
            watched = [trial for trial in trials if trial.status in (RayTrial.RUNNING, RayTrial.PENDING)]
            numbers = {suggested_trial(trial.config).number: trial for trial in watched}
            folder = self.monitor.store.folder
            self.stalls.look({number: (folder.trial(number), trial) for number, trial in numbers.items()})

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Begin a trial, and note on which node: when it has failed, Ray no longer knows."""
        with self.monitor.budget.giving_up():
            self.nodes.pop(trial.trial_id, None)
            if (process := self.processes.of(trial)) is not None:
                self.nodes[trial.trial_id] = process[0]
            self.stalls.started(self._number(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        """Hand over an epoch."""
        with self.monitor.budget.giving_up():
            attempt, worked_s, node = result.get(ATTEMPT, ""), result.get(WORKED_S, 0.0), result.get(NODE, "")
            self.monitor.epoch_ended(self._number(trial), result, attempt, worked_s, node)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Hand over that a trial starts again."""
        with self.monitor.budget.giving_up():
            number = self._number(trial)
            reason = self._reason(trial, number)
            self._start_failed(trial, number, reason)
            self.monitor.restarted(number, reason, out_of_memory=is_out_of_memory(reason))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Hand over that a trial has ended."""
        self.nodes.pop(trial.trial_id, None)
        with self.monitor.budget.giving_up():
            if trial.trial_id in self.numbers:
                self.monitor.ended(self.numbers[trial.trial_id])
        _forget_metrics(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        """Hand over that a trial has failed: Ray calls this once its restarts are used up."""
        with self.monitor.budget.giving_up():
            number = self._number(trial)
            reason = self._reason(trial, number)
            # Ray gives a trial up at once where the process of an earlier one, which it was given, is dead.
            is_early = trial.run_metadata.num_failures <= self.monitor.store.tune.max_failures
            at_fault = self._start_failed(trial, number, reason)
            if not (at_fault or is_early) or not self.monitor.begins_again(number):
                self.monitor.ended(number, reason)

    def _reason(self, trial: Any, number: int) -> str:
        reason = self.stalls.reason(number) or reason_of(trial)
        if disk_full := disk_full_in(reason, self.monitor.store.path):
            self.monitor.budget.give_up(disk_full)
        return reason

    def _start_failed(self, trial: Any, number: int, reason: str) -> bool:
        """Note that a start of a trial has failed, and return whether its node is at fault."""
        node = self.nodes.pop(trial.trial_id, None)  # once: the process of its next start may be on another one
        if is_no_nodes_fault(reason) or node is None:
            return False
        return self.monitor.start_failed(number, reason, node, self.processes.host(node))
