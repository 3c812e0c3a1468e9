"""A tracker that keeps everything in memory; it passes the same contract tests as the one of MLflow."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mis.track.base import RecordedRun, RegisteredModel, Status, metric_value, split_params
from mis.track.names import REGISTERED_FILE


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
        for name, value in metrics.items():
            point, curve = (step, metric_value(value)), self.metrics.setdefault(name, [])
            if repr(point) not in map(repr, curve):  # as text, because NaN differs from itself
                curve.append(point)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep a file's content."""
        self.files[f"{folder}/{path.name}" if folder else path.name] = path.read_bytes()

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Record which data were read."""
        self.datasets.append((name, digest, source))

    def finish(self, status: Status = "FINISHED") -> None:
        """Record how the run ended."""
        self.status = status

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
