"""A tracker that keeps everything in memory; it passes the same contract tests as the one of MLflow."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mis.track.base import (
    NoRun,
    Point,
    RecordedRun,
    RegisteredModel,
    Run,
    Status,
    StoredRun,
    now_ms,
    points_of,
    split_params,
)
from mis.track.names import REGISTERED_FILE, RUN_KEY_TAG, SESSION_TAG
from mis.track.process import process_tags
from mis.track.sessions import is_overtaken, opened_tags


@dataclass
class MemoryRun:
    """A run whose content can be read back.

    Attributes:
        id: Its unique name.
        experiment: The name of its experiment.
        name: Its name for people.
        parent: The id of the run that it stands below; None where there is none.
        params: Its parameters, as text.
        tags: Its tags.
        metrics: `(step, value)` pairs by metric, in the order in which they came.
        files: Contents of the artifacts by `folder/name`.
        datasets: `(name, digest, source)`.
        status: RUNNING until it is finished.
        started_ms: When it was started, in milliseconds since 1970.
        ended_ms: When it was finished; None before.
    """

    experiment: str
    name: str
    parent: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    datasets: list[tuple[str, str, str]] = field(default_factory=list)
    status: Status | Literal["RUNNING"] = "RUNNING"
    started_ms: int = field(default_factory=now_ms)
    ended_ms: int | None = None

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; see `Run.log_params`."""
        new, changed = split_params(params, self.params)
        self.params |= new
        self.tags |= changed

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""
        self.tags |= tags

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics; see `Run.log_metrics`."""
        self.log_points(points_of(metrics, step, now_ms()))

    def log_points(self, points: Sequence[Point]) -> None:
        """Record values of metrics; see `StoredRun.log_points`."""
        for point in points:
            kept, curve = (point.step, point.value), self.metrics.setdefault(point.name, [])
            if repr(kept) not in map(repr, curve):  # as text, because NaN differs from itself
                curve.append(kept)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep a file's content."""
        self.files[f"{folder}/{path.name}" if folder else path.name] = path.read_bytes()

    def has_file(self, name: str) -> bool:
        """Return whether a file is among the run's artifacts."""
        return name in self.files

    def resume_session(self, process: Mapping[str, str], at_ms: int) -> None:
        """Do nothing: all sessions have the same object."""

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Record which data were read."""
        if (name, digest, source) not in self.datasets:
            self.datasets.append((name, digest, source))

    def finish(self, status: Status = "FINISHED", at_ms: int | None = None) -> None:
        """Record how the run ended; see `StoredRun.finish`."""
        at_ms = now_ms() if at_ms is None else at_ms
        if at_ms >= int(self.tags.get(SESSION_TAG, "0")):
            self.status, self.ended_ms = status, max(at_ms, self.started_ms)

    def recorded(self) -> RecordedRun:
        """Return what a store has of the run."""
        metrics = {name: curve[-1][1] for name, curve in self.metrics.items()}
        return RecordedRun.of(self.id, self.params, metrics, self.tags)


class MemoryTracker:
    """A tracker whose runs end with the process: for tests, and to run without MLflow."""

    def __init__(self) -> None:
        self.runs: list[MemoryRun] = []
        self.models: dict[str, list[RegisteredModel]] = {}
        self.aliases: dict[tuple[str, str], str] = {}

    def start_run(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> MemoryRun:
        """Start a run."""
        run = MemoryRun(experiment, name, parent, tags=dict(tags or {}))
        run.log_params(params or {})
        self.runs.append(run)
        return run

    def open_run(
        self,
        experiment: str,
        name: str,
        *,
        key: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
    ) -> MemoryRun:
        """Return the run of a key, or start it; see `Tracker.open_run`."""
        return self.deliver_run(
            experiment,
            name,
            key=key or {RUN_KEY_TAG: uuid.uuid4().hex},
            params=params or {},
            tags=tags or {},
            parent=None if parent is None else parent.id,
            at_ms=now_ms(),
            process=process_tags(),
            lives=True,
        )

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
    ) -> MemoryRun:
        """Open a run as a process has opened it; see `RunStore.deliver_run`."""
        run = next(iter(self._with(experiment, key)), None)
        if run is None:
            run = self.start_run(experiment, name, tags={**process, **key}, parent=parent)
            run.started_ms = at_ms
        if is_overtaken(run.tags, process, at_ms, now_ms() if lives else None):
            run.tags = {**tags, **run.tags}
        else:
            run.status, run.ended_ms = "RUNNING", None
            run.tags |= {**process, **tags, **opened_tags(run.tags, process, at_ms)}
        run.log_params(params)
        return run

    def add_to_run(self, experiment: str, key: Mapping[str, str]) -> MemoryRun | NoRun:
        """Return the newest run that has all the tags, to add to it."""
        return self.find_run(experiment, key, go_on=False) or NoRun()

    def remove_doubles(self, run: StoredRun, experiment: str, key: Mapping[str, str], at_ms: int) -> None:
        """Do nothing: nothing is carried out later than it was asked for."""

    def refuses(self, error: Exception) -> bool:
        """Return whether an error is one of what is recorded."""
        return isinstance(error, ValueError | TypeError | LookupError)

    def may_refuse(self, error: Exception) -> bool:  # noqa: ARG002 - as of every store
        """Return False: nothing that is refused in memory is taken another time."""
        return False

    def be_patient(self, error: Exception) -> None:
        """Do nothing: memory is never slow."""

    def find_run(self, experiment: str, tags: Mapping[str, str], *, go_on: bool = True) -> MemoryRun | None:
        """Return the newest run that has all the tags."""
        for run in self._with(experiment, tags):
            run.status = "RUNNING" if go_on else run.status
            return run
        return None

    def find_finished(self, experiment: str, tags: Mapping[str, str]) -> list[RecordedRun]:
        """Return the runs that have all the tags and were FINISHED, newest first."""
        return [run.recorded() for run in self._with(experiment, tags) if run.status == "FINISHED"]

    def read_run(self, run_id: str) -> RecordedRun | None:
        """Return a run by its id; None if there is none."""
        return next((run.recorded() for run in self.runs if run.id == run_id), None)

    def fetch_file(self, run_id: str, name: str, folder: Path) -> Path | None:
        """Write a file of a run into a folder; None if there is no such file."""
        content = next((run.files.get(name) for run in self.runs if run.id == run_id), None)
        if content is None:
            return None
        path = folder / Path(name).name
        path.write_bytes(content)
        return path

    def register_model(self, name: str, run_id: str, model: Path, tags: Mapping[str, str]) -> RegisteredModel:
        """Register a model as the next version of a name."""
        run = next(run for run in self.runs if run.id == run_id)
        run.files[REGISTERED_FILE] = model.read_bytes()
        versions = self.models.setdefault(name, [])
        versions.append(RegisteredModel(str(len(versions) + 1), run_id, dict(tags)))
        return versions[-1]

    def find_model(self, name: str, which: str) -> RegisteredModel | None:
        """Return a version of a registered model by its number or its alias; None if there is no such version."""
        version = self.aliases.get((name, which), which)
        return next((model for model in self.models.get(name, ()) if model.version == version), None)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Give a version of a registered model an alias."""
        self.aliases[name, alias] = version

    def _with(self, experiment: str, tags: Mapping[str, str]) -> list[MemoryRun]:
        return [run for run in self.runs[::-1] if run.experiment == experiment and tags.items() <= run.tags.items()]

    def location(self) -> str:
        """Return one line that tells a person where to look."""
        return "runs are kept in memory only"
