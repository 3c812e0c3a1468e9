"""The trials that Ray Tune runs: handed out one by one, or all at once."""

from typing import Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from mis.track.names import BEST_DICE
from mis.tune.ray.messages import NUMBER, TRIAL, VALUES, config_of
from mis.tune.study.budget import Budget
from mis.tune.study.store import StudyStore


def make_searcher(store: StudyStore, budget: Budget, concurrent: int) -> tuple[dict[str, Any], Searcher | None]:
    """Return the space of the trials that Ray Tune is given at once, or who hands them out one by one.

    Args:
        store: The study.
        budget: When it ends.
        concurrent: How many trials run at once.
    """
    if store.is_population:  # Ray's scheduler of populations takes no searcher
        return _population(store, budget), None
    # As many as can run: a suggestion that is made earlier would know less.
    return {}, ConcurrencyLimiter(TrialSearcher(store, budget), max_concurrent=concurrent)


def _population(store: StudyStore, budget: Budget) -> dict[str, Any]:
    trials = store.interrupted()
    trials += [store.next_trial() for _ in range(store.total - len(store.trials()) - len(trials))]
    for trial in trials:
        budget.begin(trial.number)
    budget.all_begun = True
    handed = [{NUMBER: trial.number, VALUES: dict(trial.values)} for trial in trials]
    return {TRIAL: tune.grid_search(handed)}


class TrialSearcher(Searcher):  # type: ignore[misc]  # Ray's classes are Any here
    """Hands out the trials that were interrupted, and then new ones."""

    def __init__(self, store: StudyStore, budget: Budget) -> None:
        super().__init__(metric=BEST_DICE, mode="max")
        self.store = store
        self.budget = budget
        self.interrupted = store.interrupted()
        self.begun = len(store.trials()) + len(self.interrupted)

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of the next trial."""
        if self.interrupted:
            trial = self.interrupted.pop(0)
        elif self.begun >= self.store.total or self.budget.is_reached:
            self.budget.all_begun = True
            return Searcher.FINISHED
        else:
            trial = self.store.next_trial()
            self.begun += 1
        self.budget.begin(trial.number)
        return config_of(trial)

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        """Do nothing: the monitor tells the store."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing for Ray: the store has all of it."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""
