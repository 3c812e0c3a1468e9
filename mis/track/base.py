"""The protocols of a tracker, of a store and of their runs.

An entry point opens a tracker; what it calls takes a `Run` or a Keras callback, and does not know where the figures go:
`mis.track.recording` writes them to an outbox, from which they are delivered to a store, `mis.track.mlflow`; a store is
a tracker too, and so is `mis.track.memory`.
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from mis.track.names import CHANGED_PREFIX

Status = Literal["FINISHED", "FAILED", "KILLED"]

TRAIN = "mis/train"
TUNE = "mis/tune"
EVALUATE = "mis/evaluate"
SCALING = "mis/scaling"

PARAM_LENGTH = 6000
"""Characters of a parameter's value; MLflow's limit, which holds in memory too."""


class Run(Protocol):
    """One training, trial, study or measurement that is being recorded."""

    @property
    def id(self) -> str | None:
        """The run's unique name in its store; None so long as the store does not have the run."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters as their text, cut at `PARAM_LENGTH`.

        A parameter keeps its first value. A different one, logged later, becomes the tag
        `mis.changed.<name>`: a study that goes on with more trials must not fail over it.
        """

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; a later value replaces an earlier one."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record one value per metric at a step.

        An exact repetition (metric, step and value) is dropped: a training that goes on from a
        checkpoint reports its last epoch again. NaN is kept; an infinity becomes the largest float.
        """

    def log_file(self, path: Path, folder: str = "") -> None:
        """Copy a file into the run's artifacts, below `folder`."""

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Record which data were read: their name, their DVC hash (up to 36 characters), their path.

        An exact repetition is dropped.
        """

    def finish(self, status: Status = "FINISHED") -> None:
        """Record how the run ended, and when."""


@dataclass(frozen=True)
class Point:
    """A value of a metric.

    Attributes:
        name: The metric's name.
        value: Its value.
        step: Its step.
        at_ms: When it was logged, in milliseconds since 1970.
    """

    name: str
    value: float
    step: int
    at_ms: int


class StoredRun(Run, Protocol):
    """A run in a store. What it is told may have happened before."""

    @property
    def id(self) -> str:
        """The run's unique name in its store; `RunStore.start_run` takes it as `parent`."""

    def log_points(self, points: Sequence[Point]) -> None:
        """Record values of metrics; see `log_metrics`."""

    def has_file(self, name: str) -> bool:
        """Return whether a file, `folder/name`, is among the run's artifacts."""

    def resume_session(self, process: Mapping[str, str], at_ms: int) -> None:
        """Let what follows be of a session that was delivered in part before, as `RunStore.deliver_run` would.

        Args:
            process: The tags of the process that has opened the run.
            at_ms: When it has opened it, in milliseconds since 1970.
        """

    def finish(self, status: Status = "FINISHED", at_ms: int | None = None) -> None:
        """Record how the run ended, and when: by default now.

        A run that was opened again since its session goes on.
        """


@dataclass(frozen=True)
class RecordedRun:
    """What a store has of a run.

    Attributes:
        params: The last value of each parameter, as text.
        metrics: The last value of each metric.
        tags: Its tags.
        id: Its unique name in the store.
    """

    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    id: str = ""

    @classmethod
    def of(
        cls, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> "RecordedRun":
        """Return a run whose parameters have their last values: those that changed are among the tags."""
        changed = {
            name.removeprefix(CHANGED_PREFIX): text for name, text in tags.items() if name.startswith(CHANGED_PREFIX)
        }
        return cls({**params, **changed}, metrics, tags, run_id)


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        version: Its number, as text.
        run_id: The run that it was registered from.
        tags: What is known of it.
    """

    version: str
    run_id: str
    tags: Mapping[str, str]


class Tracker(Protocol):
    """Where runs are recorded."""

    def open_run(
        self,
        experiment: str,
        name: str,
        *,
        key: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
    ) -> Run:
        """Return the newest run that has all the tags of `key`, which runs again; start it where there is none.

        This is how a study or training whose process was killed finds its run and goes on in it.

        Args:
            experiment: The experiment, which is made if need be.
            name: The run's name for people, where it is started.
            key: The tags by which it is found, and which it gets. None starts a run in any case.
            params: Parameters that are recorded with it.
            tags: More tags that it gets.
            parent: The run below which it is started, of the same tracker.
        """

    def add_to_run(self, experiment: str, key: Mapping[str, str]) -> Run:
        """Return the newest run that has all the tags, to add to it; its status, and when it ended, stay.

        Where there is none, nothing is recorded.
        """

    def location(self) -> str:
        """Return one line that tells a person where to look."""


class RunStore(Tracker, Protocol):
    """A store of runs that can be read, and of registered models."""

    def start_run(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> StoredRun:
        """Start a run in an experiment, which is made if need be; `parent` is another run's id."""

    def deliver_run(
        self,
        experiment: str,
        name: str,
        *,
        key: Mapping[str, str],
        params: Mapping[str, object],
        tags: Mapping[str, str],
        parent: str | None,
        at_ms: int,
        process: Mapping[str, str],
        lives: bool = False,
    ) -> StoredRun:
        """Open a run as a process has opened it that is not this one, or was not able to then: see `Tracker.open_run`.

        What was opened once more since then stays as it is: its status, and tags that it has.

        Args:
            experiment: The experiment.
            name: The run's name for people.
            key: The tags by which it is found.
            params: Parameters that are recorded with it.
            tags: More tags that it gets.
            parent: The id of the run below which it is started.
            at_ms: When it was opened, in milliseconds since 1970.
            process: The tags of the process that has opened it.
            lives: Whether that is this process; see `mis.track.sessions.is_overtaken`.
        """

    def remove_doubles(self, run: StoredRun, experiment: str, key: Mapping[str, str], at_ms: int) -> None:
        """Delete other runs that the same call of `deliver_run` has made.

        A server may carry out a request that was given up, and made once more, much later.
        """

    def refuses(self, error: Exception) -> bool:
        """Return whether an error says that the store will not take this, however often it is tried."""

    def may_refuse(self, error: Exception) -> bool:
        """Return whether an error may say the same, or may pass; what else the store takes meanwhile tells which."""

    def be_patient(self, error: Exception) -> None:
        """Let the store take longer from now on where an error says that it was too slow.

        A server goes on with a request that was given up: who asks again too soon only adds to its work.
        """

    def find_run(self, experiment: str, tags: Mapping[str, str], *, go_on: bool = True) -> StoredRun | None:
        """Return the newest run that has all the tags; None if there is none.

        Args:
            experiment: The experiment's name.
            tags: Tags that the run must have.
            go_on: Whether the run becomes RUNNING again; otherwise its status, and when it ended, stay.
        """

    def find_finished(self, experiment: str, tags: Mapping[str, str]) -> Sequence[RecordedRun]:
        """Return the runs that have all the tags and were FINISHED, newest first."""

    def read_run(self, run_id: str) -> RecordedRun | None:
        """Return a run, whatever its experiment and status; None if there is none of this id."""

    def fetch_file(self, run_id: str, name: str, folder: Path) -> Path | None:
        """Copy a file of a run's artifacts into a folder, and return where it is; None if there is no such file.

        Args:
            run_id: The run's id.
            name: The file's path among the artifacts, e.g. `model/best.keras`.
            folder: The folder that gets it, under the last part of its name.
        """

    def register_model(self, name: str, run_id: str, model: Path, tags: Mapping[str, str]) -> RegisteredModel:
        """Register a model as the next version of a name, with its signature and its file among a run's artifacts.

        Args:
            name: The registered model's name, which is made if need be.
            run_id: The run that the model belongs to.
            model: The model's file, in Keras' format, from (batch, x, y, z, modality) to (batch, x, y, z, region).
            tags: What is known of it.
        """

    def find_model(self, name: str, which: str) -> RegisteredModel | None:
        """Return a version of a registered model by its number or its alias; None if there is no such version."""

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Give a version of a registered model an alias, which another version may have had."""


class NoRun:
    """Takes what is added to a run that is not there, and keeps nothing."""

    id = None

    def log_params(self, params: Mapping[str, object]) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Do nothing."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """Do nothing."""

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Do nothing."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Do nothing."""


AnyRun = TypeVar("AnyRun", bound=Run)


@contextmanager
def tracked(run: AnyRun) -> Iterator[AnyRun]:
    """Yield the run and finish it: FAILED after an error, KILLED after Ctrl-C or an exit, else FINISHED."""
    try:
        yield run
    except BaseException as error:
        run.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.finish()


def now_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return int(time.time() * 1000)


def points_of(metrics: Mapping[str, float], step: int, at_ms: int) -> list[Point]:
    """Return the values of metrics at a step, as every store can hold them."""
    return [Point(name, metric_value(value), step, at_ms) for name, value in metrics.items()]


def param_text(value: object) -> str:
    """Return a parameter's value as the text that is recorded.

    >>> param_text((96, 96, 96))
    '(96, 96, 96)'
    >>> text = param_text("x" * 7000)
    >>> len(text), text[-3:]
    (6000, '...')
    """
    text = str(value)
    return text if len(text) <= PARAM_LENGTH else f"{text[: PARAM_LENGTH - 3]}..."


def metric_value(value: float) -> float:
    """Return a Python float that every store can hold: databases have NaN's flag, but no infinity.

    >>> metric_value(-math.inf) == -sys.float_info.max
    True
    """
    value = float(value)
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value


def split_params(params: Mapping[str, object], known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters that are new, and tags for those whose value has changed.

    >>> split_params({"epochs": 9, "seed": 0}, known={"epochs": "5"})
    ({'seed': '0'}, {'mis.changed.epochs': '9'})
    """
    texts = {name: param_text(value) for name, value in params.items()}
    new = {name: text for name, text in texts.items() if name not in known}
    changed = {f"{CHANGED_PREFIX}{name}": text for name, text in texts.items() if known.get(name, text) != text}
    return new, changed
