"""What came out of a study, as tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from mis.errors import MisError
from mis.files import new_file, write_csv
from mis.track.base import Run
from mis.track.names import (
    BEST_DICE,
    DEVICE_HOURS,
    DEVICE_UTILISATION,
    ELAPSED_S,
    TRIALS,
    TRIALS_FAILED,
    TRIALS_PER_HOUR,
)
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial, TrialState, best_trial


@dataclass(frozen=True)
class StudyResult:
    """What came out of a study.

    Attributes:
        name: Its name in MLflow.
        trials: Every trial, in the order of their starts.
        elapsed_s: Seconds from the first trial's submission to the end of the last; over all its sessions.
        store: The study on disk.
        concurrent: How many trials ran at once.
        run: Its run.
    """

    name: str
    trials: Sequence[Trial]
    elapsed_s: float
    store: StudyStore
    concurrent: int
    run: Run

    @property
    def failed(self) -> int:
        """How many trials have failed."""
        return sum(trial.state is TrialState.FAILED for trial in self.trials)

    @property
    def best(self) -> Trial:
        """The trial with the best validation Dice."""
        return best_trial(self.trials)

    @property
    def best_model(self) -> Path:
        """The best trial's model.

        Raises:
            MisError: It has been deleted: the study was finished before, and went on without a better trial.
        """
        if self.best.best_model is None:
            raise MisError(
                "the best trial's model must be there", got=f"none of trial {self.best.name}", do="see MLflow"
            )
        return self.best.best_model

    def summary(self) -> dict[str, float]:
        """Return the figures of the study as a whole."""
        each = self.store.tune.devices_per_trial
        return {
            BEST_DICE: self.best.score,
            TRIALS: len(self.trials),
            TRIALS_FAILED: self.failed,
            TRIALS_PER_HOUR: 3600 * len(self.trials) / self.elapsed_s,
            ELAPSED_S: self.elapsed_s,
            DEVICE_HOURS: self._device_s / 3600,
            DEVICE_UTILISATION: self._device_s / (self.concurrent * each * self.elapsed_s),
        }

    @property
    def _device_s(self) -> float:
        """Seconds that devices had a trial, added up: set-up is among them, waiting for devices is not."""
        each = self.store.tune.devices_per_trial
        # A part of a device counts as such; an elastic trial has had other devices from epoch to epoch.
        return sum(trial.elapsed_s * (each if each < 1 else trial.mean_devices or each) for trial in self.trials)

    def write_table(self, path: Path) -> None:
        """Write a line for each trial (CSV)."""
        front = self.store.journal.pareto_front()
        rows = [trial.row() for trial in self.trials]
        if front:
            rows = [{**row, "pareto": row["trial"] in front} for row in rows]
        write_csv(path, rows)

    def write_histories(self, path: Path) -> None:
        """Write a line for each epoch of each trial (CSV)."""
        rows = [
            {"trial": trial.name, "epoch": number, **epoch}
            for trial in self.trials
            for number, epoch in enumerate(trial.history, start=1)
        ]
        write_csv(path, rows)

    def write_best_params(self, path: Path) -> None:
        """Write the best trial's values as YAML, ready for params.yaml or `--set`."""
        with new_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            YAML().dump(dict(self.best.values), file)

    def finish(self) -> None:
        """Mark the study as finished; call it once the best model is elsewhere. What `--resume` needs stays."""
        self.store.finish()
