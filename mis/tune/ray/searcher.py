"""The trials that Ray Tune runs: handed out one by one, or all at once."""

from typing import Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from mis.track.names import BEST_DICE
from mis.tune.ray.messages import TRIAL, config_of
from mis.tune.study.budget import Budget
from mis.tune.study.monitor import StudyMonitor
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial


def make_searcher(monitor: StudyMonitor) -> tuple[dict[str, Any], Searcher | None]:
    """Return the space of the trials that Ray Tune is given at once, or who hands them out one by one."""
    if monitor.store.is_population:  # all take turns from the start
        return _population(monitor.store, monitor.budget), None
    # As many as can run: a suggestion that is made earlier would know less.
    return {}, ConcurrencyLimiter(TrialSearcher(monitor), max_concurrent=monitor.share.concurrent)


def _population(store: StudyStore, budget: Budget) -> dict[str, Any]:
    trials = store.interrupted()
    trials += [store.next_trial() for _ in range(store.total - len(store.journal.numbers()))]
    for trial in trials:
        budget.begin(trial.number)
    budget.all_begun = True
    epochs = {trial.number: len(store.checkpoints(trial.number).history()) for trial in trials}
    interval = store.tune.scheduler.interval_epochs
    trials.sort(key=lambda trial: (epochs[trial.number] // interval, trial.number))  # Ray begins them in this order
    return {TRIAL: tune.grid_search([_config(store, trial, epochs[trial.number])[TRIAL] for trial in trials])}


def _config(store: StudyStore, trial: Trial, epochs: int) -> dict[str, Any]:
    return config_of(trial, store.journal.suggested(trial.number).values, epochs)


class TrialSearcher(Searcher):  # type: ignore[misc]  # Ray's classes are Any here
    """Hands out the trials that were interrupted, then new ones, and those again whose node was left out."""

    def __init__(self, monitor: StudyMonitor) -> None:
        super().__init__(metric=BEST_DICE, mode="max")
        self.monitor = monitor
        self.interrupted = monitor.store.interrupted()
        self.begun = len(monitor.store.journal.numbers())

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its searchers with its own state."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of the next trial; None where it is not known yet whether there is another one."""
        with self.monitor.budget.giving_up():
            return self._suggest()
        return None

    def _suggest(self) -> Any:
        store, budget = self.monitor.store, self.monitor.budget
        if self.monitor.again:
            trial = store.begun(self.monitor.again.pop(0))
        elif self.interrupted:
            trial = self.interrupted.pop(0)
        elif self.begun < store.total and not budget.is_reached:
            trial = store.next_trial()
            self.begun += 1
        elif budget.unended and not budget.is_reached:
            return None  # one that runs may have to begin again elsewhere
        else:
            budget.all_begun = True
            return Searcher.FINISHED
        budget.begin(trial.number)
        return _config(store, trial, len(store.checkpoints(trial.number).history()))

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        """Do nothing: the monitor tells the store."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing for Ray: the store has all of it."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""
