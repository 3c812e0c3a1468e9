"""Runs in MLflow: in a SQLite file or on a server, see `mis.track.store`.

The only file that imports mlflow, and late: it takes 3 s, and mlflow itself loads this file while
it is being imported, through the entry point that registers `artifact_repository`.
"""

import json
import logging
import os
import platform
import re
import shutil
import sqlite3
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from filelock import Timeout

from mis.errors import MisError
from mis.files import new_file, saying_disk_full
from mis.settings import Settings, environment
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
from mis.track.names import HOST_TAG, OPENED_TAG, PARENT_RUN_TAG, REGISTERED_FILE, RUN_KEY_TAG
from mis.track.process import is_dead, process_tags
from mis.track.sessions import is_overtaken, opened_tags
from mis.track.store import (
    LOCK_S,
    artifacts_folder,
    database_path,
    location_of,
    lock,
    probe,
    reason_of,
    tracking_uri,
    without_password,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as Recorded
    from mlflow.models import ModelSignature
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

# mlflow reads these when it is imported. DO_NOT_TRACK=1 does not stop its telemetry.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

EXPERIMENT_PREFIX = "mis/"
"""Prefix of this project's experiments; runs of other experiments are left alone."""

# MLflow's own limits.

TAG_LENGTH = 8000
"""Characters of a tag's value."""

PARAMS_PER_BATCH = 100
"""Parameters, or tags, of one call."""

METRICS_PER_BATCH = 1000
"""Points of metrics of one call."""

RUNS_PER_PAGE = 1000
"""Runs of one page of a search."""

DIGEST_LENGTH = 36
"""Characters of a data set's digest."""

# How long MLflow's client waits; it takes this from the environment alone.

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"

CONTACT_S = 4
"""Seconds in which a server must give its first answer."""

SENDS_S = (10, 20, 40, 60)
"""Seconds in which a server must answer what is delivered to it: at first, and after each time that it was too slow."""

UPLOAD_S = 120
"""Seconds in which a server must have taken a file, which it may pass on to a store of its own; MLflow's default."""

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts to open a run of a process that delivers it itself."""

REFUSED_CODES = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's error codes for what it will not take another time either."""

REFUSED_STATUS = (413, 414, 422)
"""HTTP's codes for the same, from MLflow or from a proxy before it."""

DOUBTFUL_CODE, DOUBTFUL_STATUS = "BAD_REQUEST", 400
"""What MLflow and HTTP say of what they will not take, and of what passes too: MLflow has this code for all errors of
its database but those of the connection, a pool of connections that is used up for a moment among them."""

FAILED_STATUS = re.compile(r"failed with error code (\d+)")
"""MLflow's words for an answer that is not MLflow's own."""

Item = TypeVar("Item")


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> "ArtifactRepository":
    """Resolve `mlflow-artifacts:/...`: beside the SQLite file, or through the server as mlflow does.

    MLflow stores a local artifact folder as an absolute path: after the project has moved, nothing
    is found and new files land in the old place. A URI without a place is resolved at each use.
    """
    from mlflow import get_tracking_uri
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    uri = tracking_uri or get_tracking_uri()
    if not uri.startswith("sqlite:"):
        return MlflowArtifactsRepository(artifact_uri, uri, registry_uri)
    folder = artifacts_folder(uri) / urlsplit(artifact_uri).path.lstrip("/")
    return LocalArtifactRepository(folder.as_uri(), uri, registry_uri)


class MlflowRun:
    """A run in MLflow; `MlflowTracker` makes it."""

    def __init__(self, client: "MlflowClient", recorded: "Recorded") -> None:
        self._client = client
        self._tags: dict[str, str] = dict(recorded.data.tags)
        self._started_ms = int(recorded.info.start_time)
        self._is_overtaken = False  # what is recorded is of an earlier session than what the run has
        self._id: str = recorded.info.run_id
        self._params: dict[str, str] = dict(recorded.data.params)
        # Metrics of which the store may have points that are not in `_points`: they are read when one is logged again.
        self._unread: set[str] = set(recorded.data.metrics)
        self._points: set[tuple[str, int, str]] = set()

    @property
    def id(self) -> str:
        """MLflow's run id."""
        return self._id

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; see `Run.log_params`."""
        from mlflow.entities import Param

        new, changed = split_params(params, self._params)
        for batch in _batches([Param(name, text) for name, text in new.items()], PARAMS_PER_BATCH):
            self._client.log_batch(self.id, params=batch)
        self._params |= new
        if not self._is_overtaken:
            self.set_tags(changed)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags, cut at MLflow's 8000 characters."""
        from mlflow.entities import RunTag

        if self._is_overtaken:
            known = self._client.get_run(self.id).data.tags
            tags = {name: text for name, text in tags.items() if name not in known}
        items = [RunTag(name, str(text)[:TAG_LENGTH]) for name, text in tags.items()]
        for batch in _batches(items, PARAMS_PER_BATCH):
            self._client.log_batch(self.id, tags=batch)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics; see `Run.log_metrics`."""
        self.log_points(points_of(metrics, step, now_ms()))

    def log_points(self, points: Sequence[Point]) -> None:
        """Record values of metrics; see `StoredRun.log_points`."""
        from mlflow.entities import Metric

        self._read_points({point.name for point in points})
        given = {_point_key(point): point for point in (Metric(p.name, p.value, p.at_ms, p.step) for p in points)}
        new = [point for key, point in given.items() if key not in self._points]
        for batch in _batches(new, METRICS_PER_BATCH):
            names = {point.key for point in batch}
            self._unread |= names  # whether a call that fails has reached the store, the store is asked next time
            self._client.log_batch(self.id, metrics=batch)
            self._unread -= names
            self._points |= {_point_key(point) for point in batch}

    def _read_points(self, names: Iterable[str]) -> None:
        """Read the points that an earlier process, or a call that failed, may have logged of these metrics."""
        for name in self._unread.intersection(names):
            self._points |= {_point_key(point) for point in self._client.get_metric_history(self.id, name)}
            self._unread.remove(name)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Copy a file into the run's artifacts."""
        patience = {TIMEOUT: str(UPLOAD_S)} if _send_s() is not None else {}
        with environment(patience):
            self._client.log_artifact(self.id, str(path), folder or None)

    def has_file(self, name: str) -> bool:
        """Return whether a file is among the run's artifacts."""
        return _has_file(self._client, self.id, name)

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Record which data were read; `dataset.digest` can be searched for."""
        from mlflow.entities import Dataset, DatasetInput

        dataset = Dataset(name, digest[:DIGEST_LENGTH], source_type="dvc", source=json.dumps({"path": source}))
        self._client.log_inputs(self.id, datasets=[DatasetInput(dataset)])

    def finish(self, status: Status = "FINISHED", at_ms: int | None = None) -> None:
        """Record how the run ended, and when; see `StoredRun.finish`."""
        if not self._is_overtaken:  # otherwise it goes on
            self._client.set_terminated(self.id, status, None if at_ms is None else max(at_ms, self._started_ms))

    def resume_session(self, process: Mapping[str, str], at_ms: int) -> None:
        """Let what follows be of a session that was delivered in part before; see `StoredRun.resume_session`."""
        self._is_overtaken = is_overtaken(self._tags, process, at_ms)

    def open_again(self, tags: Mapping[str, str], at_ms: int, process: Mapping[str, str], *, lives: bool) -> None:
        """Let the run go on, unless it was opened once more since then: tags that it has stay as they are then."""
        self._is_overtaken = is_overtaken(self._tags, process, at_ms, now_ms() if lives else None)
        if self._is_overtaken:
            self.set_tags(tags)
            return
        self._client.update_run(self.id, status="RUNNING")
        self.set_tags({**process, **tags, **opened_tags(self._tags, process, at_ms)})


def _answer_of(error: Exception) -> tuple[str | None, int | None]:
    """Return MLflow's code of an error, and HTTP's where the answer was not MLflow's own; None where it has none."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        answered = FAILED_STATUS.search(str(error))
        return error.error_code, None if answered is None else int(answered[1])
    return None, getattr(getattr(error, "response", None), "status_code", None)


def _recorded(run: Any) -> RecordedRun:  # noqa: ANN401 - MLflow's own
    return RecordedRun.of(run.info.run_id, run.data.params, run.data.metrics, run.data.tags)


def _has_file(client: "MlflowClient", run_id: str, name: str) -> bool:
    parent, _, _ = name.rpartition("/")
    return any(entry.path == name and not entry.is_dir for entry in client.list_artifacts(run_id, parent or None))


def _found(get: Callable[[], Item]) -> Item | None:
    """Return what MLflow has; None where it says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _signature(inputs: Sequence[int | None], outputs: Sequence[int | None]) -> "ModelSignature":
    """Return the signature of a network of volumes; an axis of any length is -1."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(shape: Sequence[int | None]) -> Schema:
        # Without a name: with one MLflow would pass a dictionary, where the network takes an array.
        return Schema([TensorSpec(np.dtype("float32"), tuple(length or -1 for length in shape))])

    return ModelSignature(schema(inputs), schema(outputs))


def _point_key(point: "Metric") -> tuple[str, int, str]:
    """Return a point's metric, step and value; the value as text, because NaN differs from itself."""
    return point.key, point.step, repr(point.value)


class MlflowTracker:
    """Runs in an MLflow store, without MLflow's global state (its active run, its tracking URI).

    Attributes:
        uri: The tracking URI.
        client: MLflow's own client, for what the protocol does not cover.
    """

    def __init__(self, settings: Settings) -> None:
        """Open the store, make it if it is the default one, and close the runs of dead processes.

        Raises:
            MisError: The tracking URI is of an unknown kind, its server does not answer, or its
                file cannot be used; DiskFullError.
        """
        self.uri = tracking_uri(settings)
        self.client = open_client(self.uri)
        with _as_no_answer(self.uri) if self._remote else saying_disk_full(database_path(self.uri).parent):
            self.reconcile()

    @property
    def _remote(self) -> bool:
        return not self.uri.startswith("sqlite:")

    def start_run(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> MlflowRun:
        """Start a run in an experiment, which is made if need be; `parent` is another run's id."""
        return self._open_run(experiment, name, key={}, params=params, tags=tags, parent=parent)

    def open_run(
        self,
        experiment: str,
        name: str,
        *,
        key: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
    ) -> MlflowRun:
        """Return the run of a key, or start it; see `Tracker.open_run`."""
        below = None if parent is None else parent.id
        return self._open_run(experiment, name, key=key or {}, params=params, tags=tags, parent=below)

    def _open_run(
        self,
        experiment: str,
        name: str,
        *,
        key: Mapping[str, str],
        params: Mapping[str, object] | None,
        tags: Mapping[str, str] | None,
        parent: str | None,
    ) -> MlflowRun:
        """Open a run, and try again what has failed: the run is found then if it was made all the same."""
        opening = partial(
            self.deliver_run,
            experiment,
            name,
            key=key or {RUN_KEY_TAG: uuid.uuid4().hex},
            params=params or {},
            tags=tags or {},
            parent=parent,
            at_ms=now_ms(),
            process=process_tags(),
            lives=True,
        )
        for pause_s in PAUSES_S:
            try:
                return opening()
            except Exception as error:
                if self.refuses(error):
                    raise
                time.sleep(pause_s)
        return opening()

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
    ) -> MlflowRun:
        """Open a run as a process has opened it; see `RunStore.deliver_run`."""
        found = next(self._search(experiment, _tag_terms(key), page=1), None)
        if found is None:
            given = {**process, **tags, **key, **opened_tags({}, process, at_ms)}
            run = self._create_run(experiment, name, given, parent, at_ms)
        else:
            run = MlflowRun(self.client, found)
            run.open_again(tags, at_ms, process, lives=lives)
        run.log_params(params)
        return run

    def _create_run(
        self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None, at_ms: int
    ) -> MlflowRun:
        below = {PARENT_RUN_TAG: parent} if parent else {}
        # The tags come with the run: a process that is killed right after it has made the run finds it again by them.
        given = {name: str(text)[:TAG_LENGTH] for name, text in {**tags, **below}.items()}
        experiment_id = self._make_experiment(experiment)
        with environment({RETRIES: "0"}):  # MLflow would make another run after an answer that was lost
            made = self.client.create_run(experiment_id, start_time=at_ms, tags=given, run_name=name)
        return MlflowRun(self.client, made)

    def add_to_run(self, experiment: str, key: Mapping[str, str]) -> MlflowRun | NoRun:
        """Return the newest run that has all the tags, to add to it."""
        return self.find_run(experiment, key, go_on=False) or NoRun()

    def remove_doubles(self, run: StoredRun, experiment: str, key: Mapping[str, str], at_ms: int) -> None:
        """Delete other runs that the same call of `deliver_run` has made."""
        for found in list(self._search(experiment, _tag_terms({**key, OPENED_TAG: str(at_ms)}))):
            if found.info.run_id != run.id:
                self.client.delete_run(found.info.run_id)

    def refuses(self, error: Exception) -> bool:
        """Return whether the store will not take this, however often it is tried; see `RunStore.refuses`."""
        code, status = _answer_of(error)
        if code is None and not isinstance(error, OSError):  # the network's errors, those of requests among them
            return isinstance(error, ValueError | TypeError | LookupError | AttributeError)
        return code in REFUSED_CODES or status in REFUSED_STATUS

    def may_refuse(self, error: Exception) -> bool:
        """Return whether an error may say the same, or may pass; see `RunStore.may_refuse`."""
        code, status = _answer_of(error)
        return code == DOUBTFUL_CODE or status == DOUBTFUL_STATUS

    def be_patient(self, error: Exception) -> None:
        """Give a server that was too slow more time, unless the user has set how much; see `RunStore.be_patient`."""
        now_s = _send_s()
        if now_s is not None and "timed out" in str(error).lower():
            os.environ[TIMEOUT] = str(next((more_s for more_s in SENDS_S if more_s > now_s), now_s))

    def find_run(self, experiment: str, tags: Mapping[str, str], *, go_on: bool = True) -> MlflowRun | None:
        """Return the newest run that has all the tags; see `Tracker.find_run`."""
        newest = next(self._search(experiment, _tag_terms(tags), page=1), None)
        if newest is None:
            return None
        run = MlflowRun(self.client, newest)
        if go_on:
            run.open_again({}, now_ms(), process_tags(), lives=True)
        return run

    def find_finished(self, experiment: str, tags: Mapping[str, str]) -> list[RecordedRun]:
        """Return the runs that have all the tags and were FINISHED, newest first."""
        found = self._search(experiment, [*_tag_terms(tags), "attributes.status = 'FINISHED'"])
        return [_recorded(run) for run in found]

    def read_run(self, run_id: str) -> RecordedRun | None:
        """Return a run by its id; None if there is none."""
        run = _found(lambda: self.client.get_run(run_id))
        return None if run is None else _recorded(run)

    def fetch_file(self, run_id: str, name: str, folder: Path) -> Path | None:
        """Copy a file of a run's artifacts into a folder; None if there is no such file."""
        if self.read_run(run_id) is None or not _has_file(self.client, run_id, name):
            return None
        with TemporaryDirectory() as fetched:
            return Path(shutil.copy2(self.client.download_artifacts(run_id, name, fetched), folder))

    def register_model(self, name: str, run_id: str, model: Path, tags: Mapping[str, str]) -> RegisteredModel:
        """Register a model with its signature, as MLflow's own flavour for Keras."""
        import keras
        from mlflow import keras as flavour
        from mlflow.exceptions import MlflowException

        network = keras.saving.load_model(model, compile=False, safe_mode=True)
        folder = REGISTERED_FILE.partition("/")[0]
        with TemporaryDirectory() as made:
            saved = Path(made) / folder
            with warnings.catch_warnings(action="ignore"):  # of the type hints in MLflow's own code
                flavour.save_model(
                    network,
                    str(saved),
                    signature=_signature(network.input_shape, network.output_shape),
                    pip_requirements=["keras", "tensorflow"],
                    metadata=dict(tags),
                )
            shutil.copy2(model, Path(made) / REGISTERED_FILE)  # with all that the file has beside the network
            self.client.log_artifacts(run_id, str(saved), folder)
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self.client.get_run(run_id).info.artifact_uri}/{folder}"
        with environment({RETRIES: "0"}):  # MLflow would make another version after an answer that was lost
            version = self.client.create_model_version(name, source, run_id, tags=dict(tags))
        return RegisteredModel(str(version.version), run_id, dict(tags))

    def find_model(self, name: str, which: str) -> RegisteredModel | None:
        """Return a version of a registered model by its number or its alias; None if there is no such version."""
        get = self.client.get_model_version if which.isdigit() else self.client.get_model_version_by_alias
        version = _found(lambda: get(name, which))
        return (
            None if version is None else RegisteredModel(str(version.version), version.run_id or "", dict(version.tags))
        )

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Give a version of a registered model an alias."""
        self.client.set_registered_model_alias(name, alias, version)

    def _search(self, experiment: str, terms: Sequence[str], page: int = RUNS_PER_PAGE) -> Iterator["Recorded"]:
        """Yield the runs of an experiment to which all the terms apply, newest first."""
        found, token = self.client.get_experiment_by_name(experiment), None
        while found is not None:
            runs = self.client.search_runs(
                [found.experiment_id],
                " and ".join(terms),
                max_results=page,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            yield from runs
            token = runs.token
            if not token:
                return

    def location(self) -> str:
        """Return one line that tells a person where to look."""
        return location_of(self.uri)

    def reconcile(self) -> list[str]:
        """Mark the runs of dead processes of this host as KILLED, and return their ids.

        A killed process leaves its runs RUNNING for ever. Each ends when it last logged a metric; a
        study, which may log none until its end, when the last of its trials did.
        """
        dead = [run for run in self._running() if is_dead(run.data.tags)]
        ends_ms = {run.info.run_id: self._last_seen_ms(run) for run in dead}
        for run in dead:
            children = [child for child in dead if child.data.tags.get(PARENT_RUN_TAG) == run.info.run_id]
            trials = [ends_ms[child.info.run_id] for child in children]
            self.client.set_terminated(run.info.run_id, "KILLED", max([ends_ms[run.info.run_id], *trials]))
        return list(ends_ms)

    def experiment_id(self, name: str) -> str | None:
        """Return MLflow's id of an experiment, None if there is none."""
        found = self.client.get_experiment_by_name(name)
        return None if found is None or found.lifecycle_stage == "deleted" else str(found.experiment_id)

    def last_study(self, experiment: str) -> tuple[str, list[str]] | None:
        """Return the newest run that has children and the ids of these, oldest first; None if there is none."""
        experiment_id = self.experiment_id(experiment)
        if experiment_id is None:
            return None
        runs = self.client.search_runs([experiment_id], max_results=RUNS_PER_PAGE)  # newest first
        parents = [run.data.tags.get(PARENT_RUN_TAG) for run in runs]
        study = next((run.info.run_id for run in runs if run.info.run_id in parents), None)
        if study is None:
            return None
        return study, [run.info.run_id for run, parent in zip(runs, parents, strict=True) if parent == study][::-1]

    def _make_experiment(self, name: str) -> str:
        """Return an experiment's id; make it where there is none, take it back where the UI has deleted it."""
        with nullcontext() if self._remote else lock(database_path(self.uri)):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return self._create_experiment(name)
            if found.lifecycle_stage == "deleted":  # its name stays taken, and nothing can be recorded under it
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def _create_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.create_experiment(name, None if self._remote else f"mlflow-artifacts:/{name}")
        except MlflowException as error:
            # Another client of the same server was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or (existing := self.experiment_id(name)) is None:
                raise
            return existing

    def _running(self) -> Iterator["Recorded"]:
        """Yield the runs that say that a process of this host is at work on them."""
        experiments = self.client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT_PREFIX}%'")
        ids = [experiment.experiment_id for experiment in experiments]
        terms, page = f"attributes.status = 'RUNNING' and tags.`{HOST_TAG}` = {_quoted(platform.node())}", None
        while ids:
            runs = self.client.search_runs(ids, terms, max_results=RUNS_PER_PAGE, page_token=page)
            yield from runs
            page = runs.token
            if not page:
                return

    def _last_seen_ms(self, run: "Recorded") -> int:
        """Return when a run last logged a metric, or else when it started (ms since 1970)."""
        histories = (self.client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
        seen_ms = [int(point.timestamp) for history in histories for point in history]
        return max([int(run.info.start_time), *seen_ms])


def open_client(uri: str) -> "MlflowClient":
    """Return MLflow's client of a store that answers; where it is a file that does not exist, it is made.

    Args:
        uri: The tracking URI, see `mis.track.store.tracking_uri`.

    Raises:
        MisError: The server does not answer, or the file cannot be used; DiskFullError.
    """
    return _open_database(uri) if uri.startswith("sqlite:") else _open_server(uri)


def _open_database(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    path = database_path(uri)
    # It would print a traceback for each call that fails, beside the error, which is said here.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        with saying_disk_full(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with lock(path):
                if not path.exists() or path.stat().st_size == 0:
                    _make_database(path)
                probe(path)
                return MlflowClient(tracking_uri=uri)
    except Timeout:
        raise MisError(f"MLflow's store must be free within {LOCK_S:.0f} s", got=path, do="end what holds it") from None
    except (OSError, sqlite3.Error, MlflowException) as error:
        raise MisError(f"MLflow's store must be a SQLite file that can be written: {error}", got=path) from error
    except SQLAlchemyError as error:
        raise MisError(
            f"MLflow's store must be a database that MLflow can use: {reason_of(error)}",
            got=path,
            do="let it be the backup of one that a new version of MLflow was changing; delete one that has no runs yet",
        ) from error


def _make_database(path: Path) -> None:
    """Make a store under another name first: a full disk, or a kill, would leave a part of its tables.

    MLflow makes them in dozens of steps, and begins none of them again.
    """
    import mlflow.store.db.utils

    database: Any = mlflow.store.db.utils  # its functions have no annotations
    with new_file(path) as unfinished:
        for suffix in ("", "-journal"):  # of a process that was killed
            unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
        probe(unfinished)
        engine = database.create_sqlalchemy_engine(f"sqlite:///{unfinished}")
        try:
            database._initialize_tables(engine)
        finally:
            engine.dispose()


def _open_server(uri: str) -> "MlflowClient":
    """Return a client of a server that has answered; only the first contact is impatient."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    with _as_no_answer(uri), environment({RETRIES: "0", TIMEOUT: str(CONTACT_S)}):
        client.search_experiments(max_results=1)
    return client


@contextmanager
def _as_no_answer(uri: str) -> Iterator[None]:
    """Raise the error of a server that does not answer as one line for the user."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if "error code 401" in str(error) or "error code 403" in str(error):
            raise MisError(
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD must be those of an account of MLflow's server",
                got=f"a refusal of {without_password(uri)}",
            ) from error
        if "certificate verify failed" in str(error).lower():
            raise MisError(
                f"the certificate of {without_password(uri)} must be known here",
                got=reason_of(error),
                do="name its file, or that of its authority, in MLFLOW_TRACKING_SERVER_CERT_PATH",
            ) from error
        rule = "MLFLOW_TRACKING_URI must name a server that answers"
        raise MisError(
            rule, got=f"{without_password(uri)} ({reason_of(error)})", do="start it, or unset the variable"
        ) from error


def impatient() -> None:
    """Let MLflow's client try each request once, and for some seconds, unless the user has set it otherwise.

    By itself it tries seven times more, for some minutes, and repeats a request to make a run after an answer that may
    have come after the run was made.
    """
    os.environ.setdefault(RETRIES, "0")
    os.environ.setdefault(TIMEOUT, str(SENDS_S[0]))


def _send_s() -> int | None:
    """Return the seconds in which a server must answer; None where the user has set others."""
    return next((seconds for seconds in SENDS_S if os.environ.get(TIMEOUT) == str(seconds)), None)


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _tag_terms(tags: Mapping[str, str]) -> list[str]:
    """Return the terms of a search of MLflow for runs that have all these tags."""
    return [f"tags.`{name}` = {_quoted(text)}" for name, text in tags.items()]


def _quoted(text: str) -> str:
    """Quote a value for MLflow's search, which has no escape."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def existing_store(settings: Settings) -> MlflowTracker:
    """Return the tracker of a store that is there already: who only reads makes no new one.

    Raises:
        MisError: It is a file that does not exist.
    """
    path = settings.tracking_uri.removeprefix("sqlite:///")
    if path != settings.tracking_uri and not Path(path).exists():
        raise MisError(
            "there must be a store of MLflow to read from",
            got=f"none at {path}",
            do="give the command in the project's folder, or set MLFLOW_TRACKING_URI",
        )
    return MlflowTracker(settings)
