"""What Optuna suggests and knows of a study, in a journal that outlasts a kill and a loss of power."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any
from zlib import crc32

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from mis.files import LineLog, NoTextError
from mis.params.space import suggest
from mis.params.tune import TuneParams
from mis.track.names import VAL_DICE
from mis.tune.pruners import make_pruner
from mis.tune.samplers import make_sampler
from mis.tune.study import messages
from mis.tune.trial import STATE_ATTRIBUTE, Trial, TrialState, Values, trial_name

VALUES_ATTRIBUTE = "values"
"""The attribute of Optuna's trial that has all values of ours, fixed ones too."""

STOP_ATTRIBUTE = "stop"
"""The attribute of Optuna's trial with the epoch after which it was decided that it is stopped."""

CHANGE_ATTRIBUTE = "change"
"""The attribute of Optuna's trial, in a population, with what was decided last to change of it."""

NAME = "study"
"""Optuna's name of the study: HyperBand draws the brackets from it."""


class _Lines(BaseJournalBackend):
    """Optuna's journal as lines of a file; one process writes it, because the study's folder is locked as a whole."""

    def __init__(self, path: Path) -> None:
        self._log = LineLog(path)
        self._group: list[str] | None = None
        self._number: int | None = None  # of entries; not known before they are read
        self._unread: list[dict[str, Any]] = []

    @property
    def is_grouping(self) -> bool:
        """Whether entries are being kept until the end of a block."""
        return self._group is not None

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the entries from a number on: those of the file at first, and later those that were appended since."""
        if self._number is None:
            entries: list[dict[str, Any]] = list(self._read())
            self._number = len(entries)
        else:
            entries = self._unread[len(self._unread) - (self._number - log_number_from) :]
        self._unread = []
        return entries

    def _read(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self._log.read()
        except NoTextError as error:
            raise messages.unreadable_journal(self._log.path, error.line) from None
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError:
                raise messages.unreadable_journal(self._log.path, number) from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries; within `together` they are kept until its end."""
        lines = [json.dumps(entry, separators=(",", ":")) for entry in logs]
        if self._group is None:
            self._log.append(lines)
        else:
            self._group += lines
        self._number = (self._number or 0) + len(lines)
        self._unread += map(json.loads, lines)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Append what the block appends as a whole, or nothing of it."""
        self._group = []
        try:
            yield
            self._log.append(self._group)
        finally:
            self._group = None


@dataclass(frozen=True)
class Journal:
    """What Optuna knows of a study.

    Attributes:
        path: The journal's file.
        params: The search.
        starts: What is given of the first trials.
        trials: How many trials the study was begun with: another budget must not change what is suggested.
        is_population: Whether trials change their values while they run.
    """

    path: Path
    params: TuneParams
    starts: Sequence[Values]
    trials: int
    is_population: bool

    @cached_property
    def _lines(self) -> _Lines:
        return _Lines(self.path)

    @cached_property
    def _storage(self) -> JournalStorage:
        return JournalStorage(self._lines)

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's study, which is made with its first use."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner, second = make_pruner(self.params), self.params.second_objective
        if self._storage.get_all_studies():
            return optuna.load_study(study_name=NAME, storage=self._storage, pruner=pruner)
        directions = [StudyDirection.MAXIMIZE] + ([] if second is None else [StudyDirection.MINIMIZE])
        with self._lines.together(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of the names, which are for the figures alone
            study = optuna.create_study(storage=self._storage, study_name=NAME, directions=directions, pruner=pruner)
            study.set_metric_names(["Dice"] if second is None else ["Dice", second])
        return study

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what the block writes as a whole; after a kill, a full disk or a loss of power it is all there, or not.

        So a decision, and what it was made from, are never apart: where it is made again, it is made from the same. A
        block within another one is a part of that.
        """
        if self._lines.is_grouping:
            yield
            return
        self.study  # noqa: B018 - made before the block, which it is no part of
        try:
            with self._lines.together():
                yield
        except BaseException:
            # What Optuna has in memory is ahead of the file: the file counts.
            for name in ("study", "_storage", "_lines"):
                self.__dict__.pop(name, None)
            raise

    def check(self) -> None:
        """Read all of it, and write nothing.

        Raises:
            MisError: A line is none of Optuna's.
        """
        self._storage.get_all_studies()

    def suggest_next(self) -> Trial:
        """Return the next trial, with the values that are suggested for it."""
        with self.together():
            number = len(self.numbers())
            # A starting point that a process has noted down, and was killed before it took that.
            waiting = len(self.study.get_trials(deepcopy=False)) > number
            if number < len(self.starts) and not waiting:
                self.study.enqueue_trial(dict(self.starts[number]))
            self._set_sampler(number)
            return self._suggested(self.study.ask())

    def numbers(self) -> list[int]:
        """Return the numbers of the trials that were suggested."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial.number for trial in trials if trial.state != OptunaState.WAITING]

    def unended(self) -> list[int]:
        """Return the numbers of the trials that were suggested, and of whose end Optuna has not been told."""
        return [trial.number for trial in self.study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,))]

    def suggested(self, number: int) -> Trial:
        """Return a trial with the values that were suggested.

        Where the journal is of an earlier version, and a kill came in between, the rest of them is suggested now.
        """
        trial = self._trial(number)
        if VALUES_ATTRIBUTE in trial.user_attrs:
            return Trial(number, trial.user_attrs[VALUES_ATTRIBUTE])
        self._set_sampler(number)
        with self.together():
            return self._suggested(optuna.Trial(self.study, trial._trial_id))

    def epochs(self, number: int) -> int:
        """Return after how many epochs a trial has been compared."""
        return self._trial(number).last_step or 0

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note how good a trial is after an epoch, and return whether it is to be stopped.

        What was decided once is decided: the same epoch, or an earlier one, changes nothing.

        Args:
            number: The trial's number.
            epoch: The epoch's number, from 1.
            value: What trials are compared by; where it is not finite, 0.
        """
        trial = self._trial(number)
        if STOP_ATTRIBUTE in trial.user_attrs:
            return True
        if epoch <= (trial.last_step or 0) or trial.state.is_finished():  # finished: one that failed is tried again
            return False
        with self.together():
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value if isfinite(value) else 0.0)
            stop = epoch < self.params.epochs and self.study.pruner.prune(self.study, self._trial(number))
            if stop:
                self._storage.set_trial_user_attr(trial._trial_id, STOP_ATTRIBUTE, epoch)
        return stop

    def running_values(self) -> dict[int, float]:
        """Return what each trial that runs was compared by last, by its number; of those that had an epoch."""
        running = self.study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,))
        return {
            trial.number: trial.intermediate_values[trial.last_step]
            for trial in running
            if trial.last_step is not None and trial.user_attrs.get(STATE_ATTRIBUTE) != TrialState.FAILED
        }

    def try_again(self, number: int) -> None:
        """Note that a trial that had failed runs again."""
        trial = self._trial(number)
        if trial.user_attrs.get(STATE_ATTRIBUTE) == TrialState.FAILED and not trial.state.is_finished():
            self._storage.set_trial_user_attr(trial._trial_id, STATE_ATTRIBUTE, str(TrialState.RUNNING))

    def change(self, number: int) -> Mapping[str, Any] | None:
        """Return what was decided last to change of a trial; None if nothing was."""
        change: Mapping[str, Any] | None = self._trial(number).user_attrs.get(CHANGE_ATTRIBUTE)
        return change

    def set_change(self, number: int, change: Mapping[str, Any]) -> None:
        """Note what is decided to change of a trial."""
        self._storage.set_trial_user_attr(self._trial(number)._trial_id, CHANGE_ATTRIBUTE, dict(change))

    def tell(self, trial: Trial) -> None:
        """Tell Optuna what became of a trial; a repetition changes nothing.

        One that has failed may be tried again: it stays running for Optuna, whose samplers keep away from where it is.
        """
        known = self._trial(trial.number)
        if known.state.is_finished():
            return
        with self.together():
            if known.user_attrs.get(STATE_ATTRIBUTE) != trial.state:
                self._storage.set_trial_user_attr(known._trial_id, STATE_ATTRIBUTE, str(trial.state))
            if trial.state is TrialState.FAILED:
                return
            # The result of half a batch says nothing of the batch that was suggested.
            is_other = any(trial.values.get(name) != value for name, value in known.params.items())
            if not trial.epochs or (is_other and not self.is_population):
                self.study.tell(trial.number, state=OptunaState.FAIL)
                return
            second = self.params.second_objective
            if trial.state is TrialState.STOPPED and second is None:
                self.study.tell(trial.number, state=OptunaState.PRUNED)
                return
            objectives = [max(0.0, trial.best[VAL_DICE])]
            if second is not None:
                objectives.append(trial.costs[second])
            self.study.tell(trial.number, objectives)

    def pareto_front(self) -> list[str]:
        """Return the names of the trials that no other one beats in both objectives; none with one objective."""
        if self.params.second_objective is None:
            return []
        return sorted(trial_name(trial.number) for trial in self.study.best_trials)

    def _trial(self, number: int) -> FrozenTrial:
        study_id = self.study._study_id
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return self._storage.get_trial(trial_id)

    def _set_sampler(self, number: int) -> None:
        # Without a salt, a study that starts from another one's best would go on with that one's random trials.
        salt = crc32(json.dumps(list(self.starts), sort_keys=True).encode()) if self.starts else 0
        self.study.sampler = make_sampler(self.params.sampler, self.params.space, number, self.trials, salt=salt)

    def _suggested(self, trial: optuna.Trial) -> Trial:
        if VALUES_ATTRIBUTE not in trial.user_attrs:
            trial.set_user_attr(VALUES_ATTRIBUTE, suggest(trial, self.params.space))
        return Trial(trial.number, trial.user_attrs[VALUES_ATTRIBUTE])
