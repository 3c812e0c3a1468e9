"""One training from its records to its run in MLflow."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from mis.data.records.index import Records
from mis.data.records.reader import check_patch, read_records
from mis.errors import MisError
from mis.files import exclusive_lock
from mis.params.load import Params
from mis.settings import Settings
from mis.track.base import TRAIN, Run, tracked
from mis.track.keras import WatchEpochs
from mis.track.mlflow import MlflowTracker
from mis.track.names import BEST_PREFIX, CHECKPOINT_TAG, RESTARTED_PREFIX, TRAIN_LOSS, VAL_DICE
from mis.track.provenance import find_origin
from mis.train.batch_rule import for_replicas, in_force
from mis.train.checkpoint import Checkpoints
from mis.train.fit import Fitted, fit
from mis.train.launch import find_launcher
from mis.train.multiworker import Worker
from mis.train.profile import Profile


@dataclass(frozen=True)
class Epoch:
    """What the chief tells of an epoch: its number, from 1, and its metrics."""

    number: int
    metrics: Mapping[str, float]


def train(params: Params, settings: Settings, *, profile: bool = False) -> Fitted | None:
    """Train, or go on with the same training where it was killed.

    Args:
        params: All parameters.
        settings: The machine.
        profile: Whether to keep a TensorFlow profile of some steps as an artifact.

    Returns:
        What came out. Its model lies among the checkpoints, which `Fitted.checkpoints` removes once
        the caller has what it needs; until then the same call returns the same without training.
        None in a process that is one of several and not their chief.

    Raises:
        MisError: There are no records, or not as many devices.
        WorkerError: Workers failed, or more of them were lost than may be.
    """
    records = read_records(settings.records, params.data)
    check_patch(records, params.train.patch_size)
    rule, replicas = params.distribute, params.distribute.devices
    resolved = params.model_copy(update={"train": for_replicas(params.train, rule, replicas)})
    folder = settings.checkpoints / "train" / fingerprint(resolved, records)
    work = partial(_work, params=resolved, records=settings.records, folder=folder, profile=profile)
    launcher = find_launcher(rule, settings, resolved.train.batch_size)
    if not launcher.leads:
        launcher.run(work)
        return None
    checkpoints, lock = Checkpoints(folder), folder.with_suffix(".lock")
    running = MisError(
        "a training with the same records, model and train parameters must not run at the same time",
        got=f"another process that has {lock}",
        do="wait for it, or give this one another MIS_ROOT or train.seed",
    )
    with (
        exclusive_lock(lock, running),
        tracked(_run(params, settings, checkpoints, records)) as run,
        _Progress(params.train.epochs, len(checkpoints.history())) as progress,
    ):
        run.log_params({**in_force(params.train, rule, replicas), "in_force.kind": rule.chosen})
        parameters = launcher.run(work, _Watch(run, progress), partial(_note, run))
        fitted = Fitted(checkpoints.history(), parameters, checkpoints, run.id)
        run.log_metrics({f"{BEST_PREFIX}{name}": value for name, value in fitted.summary().items()})
        run.log_file(fitted.best_model, "model")
        if profile and not Profile.files(folder):
            tqdm.write("no profile was kept: it begins with the third step of a process", file=sys.stderr)
        if profile:
            for file in Profile.files(folder):
                run.log_file(file, f"profile/{file.parent.relative_to(Profile.folder(folder)).as_posix()}")
    return fitted


def _note(run: Run, line: str) -> None:
    """Say that workers are started again or wait, and keep it with the run."""
    tqdm.write(line, file=sys.stderr)
    run.set_tags({f"{RESTARTED_PREFIX}{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}": line})


def fingerprint(params: Params, records: Records) -> str:
    """Return a name for this training: the same for the same records, model and training parameters.

    It does not know the devices: with the same global batch a training goes on with others.
    """
    content = {"records": records.digest, "model": params.model.model_dump(), "train": params.train.model_dump()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _work(worker: Worker, params: Params, records: Path, folder: Path, *, profile: bool) -> int:
    """Train in one process, which may be one of several, and return the number of trainable weights.

    It tells of the epochs in the checkpoint as well: whoever wrote it may have died before telling.
    """
    own = read_records(records, params.data)
    checkpoints = Checkpoints(folder, writes=worker.is_chief)
    history = checkpoints.history()
    worker.agree(int(own.digest[:8], 16), f"the records in {records}")
    worker.agree(len(history), f"the number of epochs in the newest checkpoint in {folder}")
    for number, metrics in enumerate(history, start=1):
        worker.report(Epoch(number, metrics))
    worker.progress(0)
    watchers: list[Any] = [
        WatchEpochs(lambda number, metrics: worker.report(Epoch(number, metrics))),
        _SignsOfLife(worker),
    ]
    if profile and worker.is_chief:
        watchers.append(Profile(folder))
    fitted = fit(
        params.model,
        params.train,
        own,
        strategy=worker.strategy,
        checkpoints=checkpoints,
        callbacks=watchers,
    )
    return fitted.parameters


def _run(params: Params, settings: Settings, checkpoints: Checkpoints, records: Records) -> Run:
    """Return the run of the training that was killed, or a new one."""
    tracker = MlflowTracker(settings)
    key = {CHECKPOINT_TAG: checkpoints.folder.name}
    run = tracker.find_run(TRAIN, key) if checkpoints.newest() else None
    if run is not None:
        run.log_params(params.flatten())
    else:
        spread = params.distribute
        name = f"unet-{params.model.norm}" + (f"-{spread.chosen}-{spread.devices}" if spread.devices > 1 else "")
        run = tracker.start_run(TRAIN, name, params=params.flatten(), tags=key)
    find_origin(settings, params.data, records.data_hash, records.left_out).describe(run)
    return run


class _SignsOfLife(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """Says with every step of training and of validation that there is progress."""

    async_safe = True  # it reads no logs: Keras need not wait for the device after each step

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker = worker

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Say it."""
        self.worker.progress()

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Say it."""
        self.worker.progress()


class _Watch:
    """Logs each epoch once, however often it is told of it."""

    def __init__(self, run: Run, progress: "_Progress") -> None:
        self.run = run
        self.progress = progress
        self.last = 0

    def __call__(self, epoch: Epoch) -> None:
        """Log an epoch that has ended."""
        if epoch.number <= self.last:
            return
        self.last = epoch.number
        self.run.log_metrics(epoch.metrics, step=epoch.number)
        self.progress.show(epoch)


class _Progress:
    """A bar over the epochs with the validation Dice."""

    def __init__(self, epochs: int, done: int) -> None:
        self.done = done
        self.bar = tqdm(total=epochs, initial=done, desc="train", unit="epoch", file=sys.stderr)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, epoch: Epoch) -> None:
        """Move to an epoch; not back to one that was there at the beginning."""
        if epoch.number <= self.done:
            return
        values = {"loss": epoch.metrics[TRAIN_LOSS], VAL_DICE: epoch.metrics[VAL_DICE]}
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        self.bar.n = epoch.number
        self.bar.refresh()
