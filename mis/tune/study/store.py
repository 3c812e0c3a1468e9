"""A study on disk: whatever is killed at whatever moment, it goes on from here. See `mis.tune.study.layout`."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock
from pydantic import ValidationError

from mis.errors import MisError
from mis.files import (
    exclusive_lock,
    make_folder,
    mark,
    new_folder,
    read_json,
    read_object,
    remove_file,
    remove_folder,
    write_json,
)
from mis.params.load import Params
from mis.params.tune import TuneParams
from mis.storage.claim import url_of
from mis.storage.path import storage_of
from mis.storage.remote import AwayError, RefusedError, RemoteFolder
from mis.track.names import BEST_DICE, VAL_DICE
from mis.train.checkpoint import BEST, DAMAGED, Checkpoints, patiently
from mis.train.progress import show_message
from mis.train.remote_checkpoints import RemoteCheckpoints
from mis.tune.epochs import EPOCH, reports
from mis.tune.samplers import number_of_trials
from mis.tune.study import messages
from mis.tune.study.journal import Journal
from mis.tune.study.layout import STUDY_JSON, TRIALS, StudyFolder, TrialFolder
from mis.tune.study.population import exploit, explore
from mis.tune.trial import Trial, TrialState, Values, Verdict, ranked, trial_name

BUDGET = ("tune.num_samples", "tune.hours", "tune.target_dice", "tune.max_failures", "tune.stall_s", "tune.keep")
"""What may change when a study goes on: nothing that what has been suggested and measured depends on."""

BATCH_SIZE = "train.batch_size"


CREATED_S = 60.0
"""Seconds in which other processes must have made the folders of their studies."""


@dataclass(frozen=True)
class StudyStore:
    """A study's folder. One process at a time may write to it: see `locked`.

    Attributes:
        path: The folder.
        params: All parameters.
        remote: Where the study is kept on a server too; None where every node sees `path`.
        identity: Which of all studies of its name it is; "" where it is not kept on a server, or not known.
    """

    path: Path
    params: Params
    remote: RemoteFolder | None = None
    identity: str = ""

    @classmethod
    def create(
        cls,
        path: Path,
        params: Params,
        records: str = "",
        starts: Sequence[Values] = (),
        *,
        folds: bool = False,
        stage: bool = False,
        code: Mapping[str, str] = MappingProxyType({}),
    ) -> "StudyStore":
        """Begin a study.

        Args:
            path: Its folder, which is made; the last part is its name.
            params: All parameters.
            records: The digest of the records that its trials are trained on.
            starts: What is given of the first trials.
            folds: Whether its trials are the folds of a training.
            stage: Whether a stage of the pipeline begins it, which is to take its results.
            code: Which code begins it, see `mis.tune.study.code`.

        Raises:
            MisError: There is one of this name.
        """
        content = {
            "params": params.model_dump(mode="json"),
            "records": records,
            "starts": list(starts),
            "folds": folds,
            "stage": stage,
            "trials": params.tune.num_samples,
            "code": dict(code),
        }
        make_folder(path.parent)
        # One at a time: of two processes that begin the same, the second finds that of the first.
        with FileLock(path.parent.with_name(f"{path.parent.name}.lock"), timeout=CREATED_S):
            if (path / STUDY_JSON).exists():
                raise messages.name_taken(path.name, has_folder=True)
            with new_folder(path) as unfinished:
                write_json(StudyFolder(unfinished).study, content)
                (unfinished / TRIALS).mkdir()
        return cls(path, params)

    @classmethod
    def open(cls, path: Path) -> "StudyStore":
        """Return a study that is there.

        Raises:
            MisError: There is none of this name, or another version began it.
        """
        if not StudyFolder(path).study.is_file():
            raise messages.unknown_study(path)
        study = StudyFolder(path).study
        try:
            return cls(path, Params.model_validate(read_object(study)["params"]))
        except ValidationError:
            raise messages.other_version(study) from None
        except (OSError, *DAMAGED) as error:
            raise messages.unreadable_study(study, error) from error

    @classmethod
    def find(
        cls,
        folder: Path,
        params: Params,
        records: str,
        code: Mapping[str, str] = MappingProxyType({}),
        *,
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    ) -> "StudyStore | None":
        """Return the newest study below a folder that a stage is to go on with, or to take the results of; or None.

        A stage began it, with these parameters and records. One that this code began comes before those that other code
        has. A study that is or was finished is not taken: with the same parameters a new one is wanted. Nor is one that
        cannot be read, or that another version began.

        Args:
            folder: The folder of studies.
            params: All parameters.
            records: The digest of the records.
            code: Which code there is now, see `mis.tune.study.code`.
            say: Takes a line for each study that is passed over because it cannot be read.
        """

        def is_wanted(store: "StudyStore") -> bool:
            return store.began_in_stage and (store.params, store.records) == (params, records)

        return cls.begun_by(code, cls.unfinished(folder, is_wanted=is_wanted, say=say))

    @classmethod
    def begun_by(cls, code: Mapping[str, str], stores: Iterable["StudyStore"]) -> "StudyStore | None":
        """Return the first of some studies that this code began, else the first of all; None if there is none."""
        found = list(stores)
        return next((store for store in found if store.code == code), found[0] if found else None)

    @classmethod
    def unfinished(
        cls,
        folder: Path,
        prefix: str = "",
        *,
        is_wanted: Callable[["StudyStore"], bool] = lambda store: True,  # noqa: ARG005
        say: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    ) -> Iterator["StudyStore"]:
        """Yield the studies below a folder that can be read and were not finished, the newest first.

        Args:
            folder: The folder of studies.
            prefix: How their names begin.
            is_wanted: Whether a study is one of those that are looked for: the journals of others are not read.
            say: Takes a line for each study that is passed over because it cannot be read.
        """
        found = folder.glob(f"{prefix}*/{STUDY_JSON}")
        for study in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
            if StudyFolder(study.parent).was_finished:
                continue
            try:
                store = cls.open(study.parent)
                if not is_wanted(store):
                    continue
                store.check_journal()
            except MisError as error:
                say(messages.passed_over(study.parent.name, error))
            else:
                yield store

    def check_journal(self) -> None:
        """Read the journal, and keep nothing of it: another process may run the study.

        Raises:
            MisError: It cannot be read.
        """
        try:
            replace(self).journal.check()
        except (MisError, OSError):
            raise
        except Exception as error:  # whatever Optuna raises of entries that do not go together
            raise messages.unreadable_study(self.folder.journal, error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out.

        Raises:
            MisError: Another process runs the study.
        """
        with exclusive_lock(self.folder.lock, messages.runs_already(self.name, self._runner())):
            with suppress(OSError):  # for people alone: a disk that is full ends no study here
                self.folder.runner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
            try:
                yield
            finally:
                with suppress(OSError):
                    self.folder.runner.unlink()

    def _runner(self) -> str:
        """Return which process runs the study, as that has noted it; empty where nobody has."""
        with suppress(OSError, ValueError):
            return self.folder.runner.read_text(encoding="utf-8")
        return ""

    def mend(self) -> list[str]:
        """Set aside the files of trials that cannot be read, and return a line that says so for each.

        Without its outcome a trial goes on from its checkpoint, and where that was deleted, from its start.
        """
        lines = []
        for folder in self.folder.trials:
            for path, cost in (
                (folder.outcome, "the trial goes on from its checkpoint, or runs again where that was deleted"),
                (folder.values, "the trial has the values again that were suggested for it"),
                (folder.change, "what the trial was to take over is read from the journal"),
                (folder.cloned, "the trial takes over once more what it has taken over last"),
            ):
                read = partial(_read_outcome, folder) if path == folder.outcome else partial(read_object, path)
                try:
                    if path.exists():
                        patiently(read)
                except DAMAGED:
                    path.replace(path.with_name(f".{path.name}.unreadable"))
                    remove_file(folder.recorded)
                    lines.append(messages.unreadable_file(path, cost))
        return lines

    # ---- The study ----

    @property
    def folder(self) -> StudyFolder:
        """The paths of its files."""
        return StudyFolder(self.path)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    @property
    def tune(self) -> TuneParams:
        """The parameters of the search."""
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
    def records(self) -> str:
        """The digest of the records that it was begun with."""
        return str(read_json(self.folder.study)["records"])

    @property
    def code(self) -> dict[str, str]:
        """Which code began it; empty where that was not kept."""
        return dict(read_json(self.folder.study).get("code", {}))

    @property
    def has_folds(self) -> bool:
        """Whether its trials are the folds of a training, which makes their ensemble when they have ended."""
        return bool(read_json(self.folder.study).get("folds", False))

    @property
    def began_in_stage(self) -> bool:
        """Whether a stage of the pipeline began it, which goes on with it and takes its results."""
        return bool(read_json(self.folder.study).get("stage", False))

    @property
    def awaits_stage(self) -> bool:
        """Whether a stage of the pipeline is still to take its results."""
        return self.began_in_stage and not self.was_finished

    @property
    def way_on(self) -> str:
        """How a person goes on with it where it is interrupted."""
        if self.has_folds:
            return "the same command again"
        if self.awaits_stage:
            return "dvc repro"
        kept = url_of(self.path)
        return messages.way_on(self.name, None if kept is None else storage_of(kept))

    @cached_property
    def journal(self) -> Journal:
        """What Optuna knows of the study."""
        study = read_json(self.folder.study)
        trials = study.get("trials", self.tune.num_samples)
        return Journal(self.folder.journal, self.tune, study["starts"], trials, is_population=self.is_population)

    @property
    def seconds(self) -> float:
        """Seconds that it has run, over all its sessions; of one that was killed, up to the end of its last epoch."""
        with suppress(FileNotFoundError, ValueError):  # one that cannot be read costs the time of earlier sessions
            return float(read_json(self.folder.seconds))
        return 0.0

    def set_seconds(self, seconds: float) -> None:
        """Note how long it has run by now."""
        write_json(self.folder.seconds, seconds)

    def with_params(self, params: Params) -> "StudyStore":
        """Return the same study with another budget, from now on."""
        write_json(self.folder.study, {**read_json(self.folder.study), "params": params.model_dump(mode="json")})
        return replace(self, params=params)

    @property
    def was_finished(self) -> bool:
        """Whether its results have been taken once; it may have been reopened since, and lacks the models of then."""
        return self.folder.was_finished

    def finish(self) -> None:
        """Mark the study as finished, and delete the checkpoints of its trials; what `resume` needs stays."""
        mark(self.folder.finished)  # first: half-deleted, it is not taken for one that is to go on
        self._send(self.folder.finished)
        for trial in self.folder.trials:
            trial.checkpoints.clear()
            remove_folder(trial.seen)
        self._delete_checkpoints_there()

    def reopen(self) -> None:
        """Let a finished study go on."""
        if self.folder.finished.exists():
            mark(self.folder.reopened)
            remove_file(self.folder.finished)
            if (remote := self.remote) is not None:
                self._send(self.folder.reopened)
                remote.patiently(lambda: remote.delete([self.folder.finished.name]), show_message)

    # ---- What is kept on a server ----

    def remote_trial(self, number: int) -> RemoteFolder | None:
        """Return where a trial is kept on a server; None where every node sees its folder."""
        return None if self.remote is None else self.remote.below(TRIALS, trial_name(number))

    def _send(self, path: Path) -> None:
        """Send a file that others must see now, where the study is kept on a server."""
        if (remote := self.remote) is not None:
            name = path.relative_to(self.path).as_posix()
            remote.patiently(lambda: remote.put(path, name), show_message)

    def _note(self, path: Path, content: object) -> None:
        """Write a file of a trial that the driver and its worker must both see now."""
        write_json(path, content)
        self._send(path)

    def fetch(self, number: int) -> None:
        """Fetch what a trial's worker has noted of its values; while the storage does not answer, nothing is new."""
        remote, folder = self.remote_trial(number), self.folder.trial(number)
        if remote is None:
            return
        with suppress(AwayError, RefusedError):
            there = remote.list()
            for path in (folder.values, folder.cloned):
                if path.name in there:
                    remote.get(path.name, path)

    def fetch_models(self) -> None:
        """Fetch the models of the trials that are kept, where the study is kept on a server."""
        for trial in ranked(self.trials())[: self.tune.keep]:
            self.checkpoints(trial.number).fetch_model(show_message)

    def steps(self, number: int) -> str:
        """Return what the process of a trial has noted last of its steps; another text each time it cannot be seen."""
        remote, path = self.remote_trial(number), self.folder.trial(number).steps
        if remote is None:
            return path.read_text(encoding="utf-8") if path.exists() else ""
        try:
            return (remote.read(path.name) or b"").decode()
        except (AwayError, RefusedError):
            return f"not seen at {time.monotonic()}"

    def _delete_checkpoints_there(self) -> None:
        if (remote := self.remote) is None:
            return
        trials = remote.below(TRIALS)
        with suppress(AwayError, RefusedError):  # they are in nobody's way
            trials.delete_folders_of(name for name in trials.list() if name.count("/") > 1)

    # ---- Its trials ----

    def next_trial(self) -> Trial:
        """Return the next trial that is to run."""
        return self._with_changes(self.journal.suggest_next())

    def interrupted(self) -> list[Trial]:
        """Return the trials that were suggested and have not ended, or are tried again."""
        return [
            self.begun(number) for number in self.journal.numbers() if not self.folder.trial(number).outcome.exists()
        ]

    def judge(self, number: int, report: Mapping[str, float]) -> Verdict:
        """Decide what becomes of a trial after an epoch. What is decided once stays so, however often it is asked.

        Epochs before it that nobody has judged, because a process died before it could report them, are judged first.

        Args:
            number: The trial's number.
            report: See `mis.tune.epochs.reports`.
        """
        known, epoch = self.journal.epochs(number), int(report[EPOCH])
        missed = (
            reports(self.checkpoints(number).history(at_least=epoch - 1))[known : epoch - 1]
            if epoch > known + 1
            else []
        )
        return self._judge_all(number, [*missed, report])

    def _judge_all(self, number: int, following: Sequence[Mapping[str, float]]) -> Verdict:
        verdicts = {Verdict.GO_ON}
        for report in following:
            verdicts.add(self._judge(number, int(report[EPOCH]), report))
            if Verdict.STOP in verdicts:
                return Verdict.STOP
        return Verdict.CHANGE if Verdict.CHANGE in verdicts else Verdict.GO_ON

    def _judge(self, number: int, epoch: int, report: Mapping[str, float]) -> Verdict:
        if not self.is_population:
            return Verdict.STOP if self.journal.report(number, epoch, report[BEST_DICE]) else Verdict.GO_ON
        if epoch <= self.journal.epochs(number):
            known = self.journal.change(number)
            return Verdict.CHANGE if known is not None and known["epoch"] == epoch else Verdict.GO_ON
        with self.journal.together():
            # The weights that others may take over are the newest, and not those of the best epoch.
            self.journal.report(number, epoch, report[VAL_DICE])
            values = self.journal.running_values()
            donor = exploit(self.tune, number, epoch, values) if number in values else None
            if donor is None:
                return Verdict.GO_ON
            taken_over = (self.journal.change(donor) or {"values": self.journal.suggested(donor).values})["values"]
            values_now = explore(self.tune, number, epoch, taken_over)
            donor_epoch = self.journal.epochs(donor)
            change = {"epoch": epoch, "donor": donor, "donor_epoch": donor_epoch, "values": values_now}
            self.journal.set_change(number, change)
        self._note(self.folder.trial(number).change, change)
        return Verdict.CHANGE

    def take_over(self, number: int, suggested: Values) -> None:
        """Let a trial of a population take over the weights and values that it is to go on with, if there are any.

        It does so once, however often this is called.

        Args:
            number: The trial's number.
            suggested: The values that it was begun with.
        """
        folder = self.folder.trial(number)
        change = read_json(folder.change) if folder.change.exists() else None
        if change is not None and change != (read_json(folder.cloned) if folder.cloned.exists() else None):
            donor, epoch = change["donor"], change["donor_epoch"]
            with (
                self.checkpoints(number).here(say=show_message) as own,
                self.checkpoints(donor).here(writes=False, say=show_message) as others,
            ):
                if not own.take_weights(others, at_least=epoch):
                    found = len(others.history())
                    raise messages.checkpoints_not_seen(donor, self.folder.trial(donor).path, epoch, found)
            self.set_values(number, {**self.values(number, suggested), **change["values"]})
            self._note(folder.cloned, change)

    def donor(self, number: int) -> int | None:
        """Return the number of the trial whose weights a trial has taken over last; None if it has not."""
        done = self.folder.trial(number).cloned
        return int(read_json(done)["donor"]) if done.exists() else None

    def try_failed_again(self) -> list[int]:
        """Let the trials that have failed go on from their last checkpoints, and return their numbers."""
        return self.try_again(trial.number for trial in self.trials() if trial.state is TrialState.FAILED)

    @property
    def has_more(self) -> bool:
        """Whether a trial is still to be run."""
        return len(self.journal.numbers()) < self.total or bool(self.interrupted())

    @property
    def all_failed(self) -> bool:
        """Whether every trial that has ended has failed, and there is one: it was no trial's own fault then."""
        ended = self.trials()
        return bool(ended) and all(trial.state is TrialState.FAILED for trial in ended)

    def try_again(self, numbers: Iterable[int]) -> list[int]:
        """Let trials that have ended go on from their last checkpoints, and return the numbers of those that had."""
        ended = [number for number in sorted(numbers) if self.folder.trial(number).outcome.exists()]
        for number in ended:
            self.journal.try_again(number)
            remove_file(self.folder.trial(number).recorded)
            remove_file(self.folder.trial(number).outcome)
        return ended

    def begun(self, number: int) -> Trial:
        """Return a trial that was suggested before, with the values that it has now."""
        return self._with_changes(self.journal.suggested(number))

    def trials(self) -> list[Trial]:
        """Return the trials that have ended, with their histories, in the order of their numbers."""
        return [_read_outcome(trial) for trial in self.folder.trials if trial.outcome.exists()]

    def checkpoints(self, number: int) -> Checkpoints:
        """Return where a trial's checkpoints are."""
        folder, remote = self.folder.trial(number), self.remote_trial(number)
        if remote is None:
            return folder.checkpoints
        # In a population a trial may have others' weights: what waits on a node is of no use.
        own = "" if self.is_population or not self.identity else f"{self.identity}-{number}"
        return RemoteCheckpoints(folder.seen, remote=remote, identity=own)

    def values(self, number: int, suggested: Values) -> Values:
        """Return the values that a trial has by now."""
        path = self.folder.trial(number).values
        values: Values = read_json(path) if path.exists() else suggested
        return values

    def set_values(self, number: int, values: Values) -> None:
        """Give a trial other values from now on."""
        self._note(self.folder.trial(number).values, dict(values))

    def halve_batch(self, number: int, suggested: Values, devices: int) -> bool:
        """Give a trial half its batch from now on; return whether that is wanted, and possible.

        Args:
            number: The trial's number.
            suggested: The values that it was begun with.
            devices: How many devices each trial has; they share the batch evenly.
        """
        values = self.values(number, suggested)
        parts = devices if self.params.distribute.batch_rule == "fixed_global_batch" else 1
        half = int(values.get(BATCH_SIZE, self.params.train.batch_size)) // (2 * parts) * parts
        if half == 0 or not self.tune.retry_oom:
            return False
        self.set_values(number, {**values, BATCH_SIZE: half})
        return True

    def end(self, trial: Trial) -> None:
        """Write what became of a trial, and tell Optuna."""
        if trial.history and not self.is_population:  # epochs that its process did not live to report
            self._judge_all(trial.number, reports(list(map(dict, trial.history)))[self.journal.epochs(trial.number) :])
        write_json(self.folder.trial(trial.number).outcome, trial.to_json())
        self.journal.tell(trial)

    def catch_up(self) -> None:
        """Do what a process that was killed has decided and not done: tell Optuna of outcomes, and change trials."""
        for number in self.journal.unended():
            folder = self.folder.trial(number)
            if folder.outcome.exists():
                self.journal.tell(_read_outcome(folder))
            elif (change := self.journal.change(number)) is not None:
                self._note(folder.change, change)

    def delete_model(self, number: int) -> None:
        """Delete the checkpoints of a trial that has ended."""
        self.checkpoints(number).clear()

    def keep_best(self) -> None:
        """Delete the checkpoints of the trials that have ended, but for the best `tune.keep`."""
        for trial in ranked(self.trials())[self.tune.keep :]:
            self.delete_model(trial.number)

    def is_recorded(self, number: int) -> bool:
        """Return whether the tracker has what became of a trial."""
        return self.folder.trial(number).recorded.exists()

    def set_recorded(self, number: int) -> None:
        """Note that the tracker has what became of a trial."""
        mark(self.folder.trial(number).recorded)

    def _with_changes(self, trial: Trial) -> Trial:
        return replace(trial, values=self.values(trial.number, trial.values))


def _read_outcome(folder: TrialFolder) -> Trial:
    newest = folder.checkpoints.newest() or Checkpoints(folder.seen).newest()
    content = {**read_object(folder.outcome), "number": folder.number}
    return replace(Trial.from_json(content), best_model=newest / BEST if newest else None)
