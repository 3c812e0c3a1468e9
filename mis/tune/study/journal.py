"""What Optuna suggests and knows of a study, in a journal that survives a kill."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zlib import crc32

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from mis.params.space import suggest
from mis.params.tune import TuneParams
from mis.track.names import VAL_DICE
from mis.tune.samplers import make_sampler
from mis.tune.trial import STATE_ATTRIBUTE, Trial, Values, trial_name

VALUES_ATTRIBUTE = "values"
"""The attribute of Optuna's trial that has all values of ours, fixed ones too."""


class _NoLock(JournalFileOpenLock):
    """No lock: the study's folder is locked as a whole, and Optuna's own lock would outlive a killed process."""

    def acquire(self) -> bool:
        """Return at once."""
        return True

    def release(self) -> None:
        """Release nothing."""


@dataclass(frozen=True)
class Journal:
    """What Optuna knows of a study.

    Attributes:
        path: The journal's file.
        params: The search.
        starts: What is given of the first trials.
        is_population: Whether trials change their values while they run.
    """

    path: Path
    params: TuneParams
    starts: Sequence[Values]
    is_population: bool

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's study, which is made with its first use."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(self.path), lock_obj=_NoLock(str(self.path))))
        second = self.params.second_objective
        directions = [StudyDirection.MAXIMIZE] + ([] if second is None else [StudyDirection.MINIMIZE])
        study = optuna.create_study(storage=storage, study_name="study", directions=directions, load_if_exists=True)
        with warnings.catch_warnings():  # the names are for the figures alone
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(["Dice"] if second is None else ["Dice", second])
        return study

    def cut_torn_line(self) -> None:
        """Cut off the last line where a process was killed while it wrote that."""
        if self.path.exists():
            content = self.path.read_bytes()
            if not content.endswith(b"\n"):
                with self.path.open("r+b") as file:
                    file.truncate(content.rfind(b"\n") + 1)

    def suggest_next(self) -> Trial:
        """Return the next trial, with the values that are suggested for it."""
        trials = self.study.get_trials(deepcopy=False)
        # A starting point that a process has noted down, and was killed before it took that.
        waiting = sum(trial.state == OptunaState.WAITING for trial in trials)
        number = len(trials) - waiting
        if number < len(self.starts) and not waiting:
            self.study.enqueue_trial(dict(self.starts[number]))
        self._set_sampler(number)
        return self._suggested(self.study.ask())

    def unended(self) -> list[int]:
        """Return the numbers of the trials that were suggested, and of whose end Optuna has not been told."""
        return [trial.number for trial in self.study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,))]

    def suggested(self, number: int) -> Trial:
        """Return a trial with the values that were suggested; where a kill came in between, the rest is now."""
        self._set_sampler(number)
        return self._suggested(optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id))

    def tell(self, trial: Trial) -> None:
        """Tell Optuna what became of a trial; a repetition changes nothing."""
        known = self.study.get_trials(deepcopy=False)[trial.number]
        if not known.state.is_finished():
            optuna.Trial(self.study, known._trial_id).set_user_attr(STATE_ATTRIBUTE, str(trial.state))
        # The result of half a batch says nothing of the batch that was suggested.
        is_other = any(trial.values.get(name) != value for name, value in known.params.items())
        if not trial.epochs or (is_other and not self.is_population):
            self.study.tell(trial.number, state=OptunaState.FAIL, skip_if_finished=True)
            return
        objectives = [max(0.0, trial.best[VAL_DICE])]
        if self.params.second_objective is not None:
            objectives.append(trial.costs[self.params.second_objective])
        self.study.tell(trial.number, objectives, skip_if_finished=True)

    def pareto_front(self) -> list[str]:
        """Return the names of the trials that no other one beats in both objectives; none with one objective."""
        if self.params.second_objective is None:
            return []
        return sorted(trial_name(trial.number) for trial in self.study.best_trials)

    def _set_sampler(self, number: int) -> None:
        # Without a salt, a study that starts from another one's best would go on with that one's random trials.
        salt = crc32(json.dumps(list(self.starts), sort_keys=True).encode()) if self.starts else 0
        self.study.sampler = make_sampler(
            self.params.sampler, self.params.space, number, self.params.num_samples, salt=salt
        )

    def _suggested(self, trial: optuna.Trial) -> Trial:
        if VALUES_ATTRIBUTE not in trial.user_attrs:
            trial.set_user_attr(VALUES_ATTRIBUTE, suggest(trial, self.params.space))
        return Trial(trial.number, trial.user_attrs[VALUES_ATTRIBUTE])
