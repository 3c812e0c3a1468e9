"""A study on disk: whatever is killed at whatever moment, it goes on from here.

A study is a folder:

- `study.json`: its parameters, and the digest of its records;
- `journal.log`: Optuna's study, written line by line: what was suggested and what came of it;
- `trials/007/`: the checkpoints of a trial while it runs; `values.json` if it has others by now than were
  suggested; `outcome.json` once it has ended, written under another name and renamed: a trial has ended if
  that file is there.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from zlib import crc32

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import TrialState
from pydantic import ValidationError

from mis.errors import MisError
from mis.files import exclusive_lock, new_folder, read_json, write_json
from mis.params.base import Scalar
from mis.params.load import Params
from mis.params.space import suggest
from mis.params.tune import TuneParams
from mis.track.names import MODEL_PARAMETERS, TOTAL_S, VAL_DICE
from mis.train.checkpoint import BEST, Checkpoints, History, best_epoch
from mis.tune.samplers import make_sampler, number_of_trials

STUDY, JOURNAL, OUTCOME, RECORDED = "study.json", "journal.log", "outcome.json", "recorded"
BUDGET = ("tune.num_samples", "tune.hours", "tune.target_dice", "tune.max_failures", "tune.keep")
"""What may change when a study goes on: nothing that what has been suggested and measured depends on."""

VALUES, CLONED, SECONDS = "values.json", "cloned.json", "seconds.json"

BATCH_SIZE = "train.batch_size"

STATE = "state"
"""The attribute of Optuna's trial that says what became of ours."""

OBJECTIVES = {"seconds": TOTAL_S, "parameters": MODEL_PARAMETERS}
"""The metric of each second objective."""


Values = Mapping[str, Scalar]
"""What a trial has in place of params.yaml, by dotted name."""


@dataclass(frozen=True)
class Trial:
    """What became of one trial.

    Attributes:
        name: Its number, in the order of their starts, e.g. "003".
        values: What it had in place of params.yaml, by dotted name.
        state: `completed`, `stopped` (by the scheduler or the budget), `diverged` or `failed`.
        history: The metrics of each epoch.
        elapsed_s: Seconds that its processes worked on it, set-up included, pauses not; of a trial that was
            begun in an earlier session of the study, those of its epochs then and all of now.
        best_model: The model after its best epoch; None if it had no epoch, or was not kept.
        error: Why it failed.
    """

    name: str
    values: Values
    state: str
    history: History
    elapsed_s: float
    best_model: Path | None = None
    error: str = ""

    @property
    def best(self) -> dict[str, float]:
        """The metrics of its best epoch; empty if it had none."""
        return self.history[best_epoch(self.history) - 1] if self.history else {}

    @property
    def costs(self) -> dict[str, float]:
        """What may be made small beside the Dice: seconds of training, trainable weights; empty if it had no epoch."""
        last = self.history[-1] if self.history else {}
        return {name: last[metric] for name, metric in OBJECTIVES.items() if metric in last}

    def row(self) -> dict[str, object]:
        """Return the trial's line of a table."""
        figures = {name: round(value, 6) for name, value in self.best.items() if name.startswith("val/")}
        return {
            "trial": self.name,
            "state": self.state,
            "epochs": len(self.history),
            **figures,
            **{name: round(value) if name == "parameters" else round(value, 2) for name, value in self.costs.items()},
            "elapsed_s": round(self.elapsed_s, 2),
            **self.values,
            "error": self.error,
        }


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best validation Dice, the earliest of equals.

    Raises:
        MisError: No trial finished an epoch.
    """
    scored = [trial for trial in trials if trial.history]
    if not scored:
        errors = [trial.error for trial in trials if trial.error]
        reason = f"the first error: {errors[0]}" if errors else "which the budget has ended"
        raise MisError("at least one trial must finish an epoch", got=f"{len(trials)} that did not, {reason}")
    return max(scored, key=lambda trial: (trial.best[VAL_DICE], -int(trial.name)))


def trial_name(number: int) -> str:
    """Return a trial's number as it is shown.

    >>> trial_name(3)
    '003'
    """
    return f"{number:03d}"


@dataclass(frozen=True)
class Asked:
    """A trial that is to run: its number and its values."""

    number: int
    values: Values

    @property
    def name(self) -> str:
        """The number as it is shown, e.g. "003"."""
        return trial_name(self.number)


class _NoLock(JournalFileOpenLock):
    """The whole folder is locked by `StudyStore.held`; Optuna's own lock would outlive a killed process."""

    def acquire(self) -> bool:
        """Take it, always."""
        return True

    def release(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class StudyStore:
    """A study's folder. One process at a time may write to it: see `held`."""

    folder: Path
    params: Params

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @classmethod
    def create(cls, folder: Path, params: Params, records: str = "", starts: Sequence[Values] = ()) -> "StudyStore":
        """Begin a study on records with this digest; the first trials have the values of `starts`."""
        content = {"params": params.model_dump(mode="json"), "records": records, "starts": list(starts)}
        with new_folder(folder) as unfinished:
            write_json(unfinished / STUDY, content)
            (unfinished / "trials").mkdir()
        return cls(folder, params)

    @classmethod
    def open(cls, folder: Path) -> "StudyStore":
        """Return a study that is there.

        Raises:
            MisError: There is none of this name, or another version began it.
        """
        if not (folder / STUDY).is_file():
            known = sorted(path.parent.name for path in folder.parent.glob(f"*/{STUDY}"))
            raise MisError(
                f"a study that goes on must be in {folder.parent}",
                got=folder.name,
                do=f"there is {', '.join(known) or 'none'}; a new study can begin from an ended one: tune.start.study",
            )
        try:
            return cls(folder, Params.model_validate(read_json(folder / STUDY)["params"]))
        except ValidationError:
            raise MisError(
                f"{folder / STUDY} has parameters that this version does not take", do="go on with the version of then"
            ) from None

    @classmethod
    def find(cls, folder: Path, params: Params, records: str) -> "StudyStore | None":
        """Return the newest study below a folder with the same parameters and records; None if there is none."""
        for path in sorted(folder.glob(f"*/{STUDY}"), reverse=True):
            with suppress(MisError):  # one that another version began
                store = cls.open(path.parent)
                if (store.params, store.records) == (params, records):
                    return store
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out, and mend what a killed one has left half-written.

        Raises:
            MisError: Another process runs the study.
        """
        running = MisError("a study must run once at a time", got=self.name, do="end its other process")
        with exclusive_lock(self.folder / "lock", running):
            self._cut_torn_line()
            yield

    def _cut_torn_line(self) -> None:
        journal = self.folder / JOURNAL
        if journal.exists():
            text = journal.read_bytes()
            if not text.endswith(b"\n"):
                with journal.open("r+b") as file:
                    file.truncate(text.rfind(b"\n") + 1)

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's side of it."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = str(self.folder / JOURNAL)
        storage = JournalStorage(JournalFileBackend(path, lock_obj=_NoLock(path)))
        second = self.tune.second_objective
        directions = [StudyDirection.MAXIMIZE] + ([] if second is None else [StudyDirection.MINIMIZE])
        study = optuna.create_study(storage=storage, study_name="study", directions=directions, load_if_exists=True)
        with warnings.catch_warnings():  # the names are for the figures alone
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(["Dice"] if second is None else ["Dice", second])
        return study

    @property
    def tune(self) -> TuneParams:
        """The study's own parameters."""
        return self.params.tune

    @property
    def is_population(self) -> bool:
        """Whether trials go on from each other's weights."""
        return self.tune.scheduler.name == "pbt"

    @property
    def total(self) -> int:
        """How many trials it has, where nothing ends it before."""
        return number_of_trials(self.tune.sampler, self.tune.space, self.tune.num_samples)

    @property
    def seconds(self) -> float:
        """What all its starts have taken: of one that was killed, up to the end of its last trial."""
        path = self.folder / SECONDS
        return float(read_json(path)) if path.exists() else 0.0

    @property
    def records(self) -> str:
        """The digest of the records that it was begun with."""
        return str(read_json(self.folder / STUDY)["records"])

    @cached_property
    def starts(self) -> list[Values]:
        """What is given of the first trials."""
        return list(read_json(self.folder / STUDY)["starts"])

    def with_params(self, params: Params) -> "StudyStore":
        """Return the same study with another budget, from now on."""
        write_json(self.folder / STUDY, {**read_json(self.folder / STUDY), "params": params.model_dump(mode="json")})
        return StudyStore(self.folder, params)

    def set_seconds(self, seconds: float) -> None:
        """Note how long all starts have taken by now."""
        write_json(self.folder / SECONDS, seconds)

    # ---- Trials ----

    def interrupted(self) -> list[Asked]:
        """Return the trials that were suggested and have not ended."""
        asked = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._outcome(trial.number).exists():
                self._use_sampler_of(trial.number)
                asked.append(self._asked(optuna.Trial(self.study, trial._trial_id)))
        return asked

    def ask(self) -> Asked:
        """Return the next trial."""
        trials = self.study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)  # a killed process has not taken it
        number = len(trials) - waiting
        if number < len(self.starts) and not waiting:
            self.study.enqueue_trial(dict(self.starts[number]))
        self._use_sampler_of(number)
        return self._asked(self.study.ask())

    def _use_sampler_of(self, number: int) -> None:
        own = self.tune
        # Else a study that starts from another one's best would go on with that one's random trials.
        salt = crc32(json.dumps(self.starts, sort_keys=True).encode()) if self.starts else 0
        self.study.sampler = make_sampler(own.sampler, own.space, number, own.num_samples, salt=salt)

    def _asked(self, trial: optuna.Trial) -> Asked:
        if "values" not in trial.user_attrs:
            trial.set_user_attr("values", suggest(trial, self.tune.space))
        return Asked(trial.number, self.values(trial.number, trial.user_attrs["values"]))

    def values(self, number: int, suggested: Values) -> Values:
        """Return what a trial has by now."""
        path = self._folder(number) / VALUES
        values: Values = read_json(path) if path.exists() else suggested
        return values

    def set_values(self, number: int, values: Values) -> None:
        """Give a trial other values from now on."""
        write_json(self._folder(number) / VALUES, dict(values))

    def halve_batch(self, number: int, suggested: Values, devices: int) -> bool:
        """Give a trial half its batch from now on; return whether that is wanted, and possible.

        Args:
            number: Of the trial.
            suggested: The values that it was begun with.
            devices: Of each trial; they share the batch evenly.
        """
        values = self.values(number, suggested)
        parts = devices if self.params.distribute.batch_rule == "fixed_global_batch" else 1
        half = int(values.get(BATCH_SIZE, self.params.train.batch_size)) // (2 * parts) * parts
        if half == 0 or not self.tune.retry_oom:
            return False
        self.set_values(number, {**values, BATCH_SIZE: half})
        return True

    def clone(self, number: int, donor: int, values: Values, mark: str) -> None:
        """Let a trial go on from another one's weights with other values; once for each mark."""
        done = self._folder(number) / CLONED
        if not done.exists() or read_json(done)["mark"] != mark:
            self.checkpoints(number).take_weights(self.checkpoints(donor))
            self.set_values(number, values)
            write_json(done, {"mark": mark, "donor": donor})

    def donor(self, number: int) -> int | None:
        """Return the number of the trial from whose weights this one has gone on last; None if it has not."""
        done = self._folder(number) / CLONED
        return int(read_json(done)["donor"]) if done.exists() else None

    def checkpoints(self, number: int) -> Checkpoints:
        """Return where a trial's checkpoints are."""
        return Checkpoints(self._folder(number))

    def end(self, number: int, trial: Trial) -> None:
        """Write what became of a trial, and tell Optuna."""
        write_json(self._outcome(number), {**asdict(trial), "best_model": None})
        self._tell(number, trial)

    def catch_up(self) -> None:
        """Tell Optuna of the trials of which the process that was killed could not tell any more."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._outcome(trial.number).exists():
                self._tell(trial.number, self._read(trial.number))

    def _tell(self, number: int, trial: Trial) -> None:
        known = self.study.get_trials(deepcopy=False)[number]
        if not known.state.is_finished():
            optuna.Trial(self.study, known._trial_id).set_user_attr(STATE, trial.state)
        # The result of half a batch says nothing of the batch that was suggested.
        other = not self.is_population and any(trial.values.get(name) != value for name, value in known.params.items())
        if trial.history and not other:
            objectives = [max(0.0, trial.best[VAL_DICE])]
            if self.tune.second_objective is not None:
                objectives.append(trial.costs[self.tune.second_objective])
            self.study.tell(number, objectives, skip_if_finished=True)
        else:
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def trials(self) -> list[Trial]:
        """Return the trials that have ended."""
        numbers = sorted(int(path.parent.name) for path in self.folder.glob(f"trials/*/{OUTCOME}"))
        return [self._read(number) for number in numbers]

    def pareto_front(self) -> list[str]:
        """Return the names of the trials that no other one beats in both objectives; none with one objective."""
        if self.tune.second_objective is None:
            return []
        return sorted(trial_name(trial.number) for trial in self.study.best_trials)

    def keep(self, most: int) -> None:
        """Delete the checkpoints of trials that have ended, but for those of the best ones."""
        scored = [trial for trial in self.trials() if trial.history]
        best = sorted(scored, key=lambda trial: (-trial.best[VAL_DICE], trial.name))[:most]
        for trial in scored:
            if trial.name not in {one.name for one in best}:
                for checkpoint in self._folder(int(trial.name)).glob("epoch-*"):
                    shutil.rmtree(checkpoint)

    def is_recorded(self, number: int) -> bool:
        """Return whether the tracker has what became of a trial."""
        return (self._folder(number) / RECORDED).exists()

    def set_recorded(self, number: int) -> None:
        """Note that the tracker has it."""
        (self._folder(number) / RECORDED).touch()

    def remove(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self.folder / "trials" / trial_name(number)

    def _outcome(self, number: int) -> Path:
        return self._folder(number) / OUTCOME

    def _read(self, number: int) -> Trial:
        newest = self.checkpoints(number).newest()
        content = json.loads(self._outcome(number).read_text(encoding="utf-8"))
        return Trial(**{**content, "best_model": newest / BEST if newest else None})
