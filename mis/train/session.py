"""One training from its records to its run in MLflow."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import keras

from mis.data.records.index import Records
from mis.data.records.reader import check_patch, read_records
from mis.data.records.source import RecordsSource, publish, source_of
from mis.errors import MisError
from mis.files import exclusive_lock
from mis.model.size import NetworkSize, network_size
from mis.params.load import Params
from mis.settings import Settings
from mis.storage.claim import check_kept_here, claimed, sessions_there
from mis.storage.path import remote_folder
from mis.track.base import Run, tracked
from mis.track.names import (
    BEST_PREFIX,
    MODEL_ACTIVATION_BYTES,
    MODEL_RECEPTIVE_FIELD,
    RESTARTED_PREFIX,
    RUN_KEY_TAG,
)
from mis.track.recording import delivered_id, open_tracker
from mis.train.batch_rule import for_replicas
from mis.train.callbacks import Epoch, ReportEpochs, ReportSteps
from mis.train.checkpoint import Checkpoints
from mis.train.fit import Fitted, fit
from mis.train.in_force import in_force
from mis.train.launch import Launcher, find_launcher
from mis.train.profile import ProfileSteps
from mis.train.progress import ProgressBar, show_message
from mis.train.record import key_of_run, open_run
from mis.train.remote_checkpoints import RemoteCheckpoints, send_checkpoints
from mis.train.worker import Worker


def train(params: Params, settings: Settings, *, profile: bool = False) -> Fitted | None:
    """Train, or go on with the same training where it was killed.

    Args:
        params: All parameters.
        settings: The machine's settings.
        profile: Whether to keep a TensorFlow profile of some steps as an artifact.

    Returns:
        The result. Its model lies among the checkpoints, which `Fitted.checkpoints` removes once
        the caller has what it needs; until then the same call returns the same without training.
        None in a process that is one of several and not their chief.

    Raises:
        MisError: There are no records, or not as many devices, or the same training runs in another process, or
            MLflow's server does not answer.
        WorkerError: Workers failed, or were lost more often than `distribute.max_restarts`.
    """
    resolved = for_replicas(params.train, params.distribute, params.distribute.devices)
    launcher = find_launcher(params.distribute, settings, resolved.batch_size)
    with launcher.attend():
        return _train(params, settings, launcher, profile=profile)


def _train(params: Params, settings: Settings, launcher: Launcher, *, profile: bool) -> Fitted | None:
    """Train with a launcher, see `train`."""
    records = read_records(settings.records, params.data)
    check_patch(records, params.train.patch_size)
    rule, replicas = params.distribute, params.distribute.devices
    resolved = params.model_copy(update={"train": for_replicas(params.train, rule, replicas)})
    folder = settings.checkpoints / "train" / fingerprint(resolved, records)
    remote, what = remote_folder(settings, folder), f"training {folder.name}"
    plain = Checkpoints(folder)
    kept = plain if remote is None else RemoteCheckpoints(folder / "seen", remote=remote)
    train_in_worker = partial(_train_in_worker, params=resolved, folder=folder, profile=profile)
    if not launcher.leads:
        launcher.run(partial(train_in_worker, source=source_of(records, settings), checkpoints=kept))
        return None
    lock = folder.with_suffix(".lock")
    check_kept_here(folder, remote, what)
    running = MisError(
        "a training with the same records, model and train parameters must not run at the same time",
        got=f"another process that holds {lock}",
        do="wait for it, or give this one another MIS_ROOT or train.seed",
    )
    with (
        exclusive_lock(lock, running),
        _claimed(kept, folder, what) as checkpoints,
        open_tracker(settings, show_message) as tracker,
        tracked(open_run(tracker, params, settings, checkpoints, records)) as run,
        ProgressBar(params.train.epochs, len(checkpoints.history())) as bar,
    ):
        run.log_params({**in_force(params.train, rule, replicas), "in_force.kind": rule.chosen})
        work = partial(train_in_worker, source=publish(records, settings, show_message), checkpoints=checkpoints)
        parameters = launcher.run(work, _ReportLog(run, bar), partial(_log_restart, run))
        checkpoints.fetch_model(show_message)
        fitted = Fitted(checkpoints.history(), parameters, checkpoints)
        run.log_metrics({f"{BEST_PREFIX}{name}": value for name, value in fitted.summary().items()})
        run.log_file(fitted.best_model, "model")
        if profile:
            _log_profile(run, folder)
    return replace(fitted, run_id=delivered_id(run))


@contextmanager
def _claimed(kept: Checkpoints, folder: Path, what: str) -> Iterator[Checkpoints]:
    """Yield the checkpoints of a training that no other process goes on with; those of this machine are sent first."""
    if not isinstance(kept, RemoteCheckpoints):
        yield kept
        return
    plain = Checkpoints(folder)
    begun = [key] if plain.newest() and (key := key_of_run(plain).get(RUN_KEY_TAG)) else []
    before = sessions_there(kept.remote, show_message) or begun
    with claimed(kept.remote, folder, what, show_message, before) as claim:
        own = replace(kept, identity=claim.identity)
        send_checkpoints(plain, own, show_message)
        yield own


def _log_profile(run: Run, folder: Path) -> None:
    files = ProfileSteps.files(folder)
    if not files:
        show_message("no profile was kept: it begins with the third step of a process")
    for file in files:
        run.log_file(file, f"profile/{file.parent.relative_to(ProfileSteps.folder(folder)).as_posix()}")


def _log_restart(run: Run, line: str) -> None:
    """Show that workers wait or are started again, and record it with the run."""
    show_message(line)
    run.set_tags({f"{RESTARTED_PREFIX}{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}": line})


def fingerprint(params: Params, records: Records) -> str:
    """Return a name for this training: the same for the same records, model and training parameters.

    Devices are not part of it: with the same global batch a training goes on with other devices.
    """
    content = {"records": records.digest, "model": params.model.model_dump(), "train": params.train.model_dump()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _train_in_worker(
    worker: Worker, params: Params, source: RecordsSource, checkpoints: Checkpoints, folder: Path, *, profile: bool
) -> int:
    """Train in one process, which may be one of several, and return the number of trainable weights.

    Epochs of the checkpoint are reported as well: the chief that wrote it may have died before it reported them.
    """
    records = source.on_this_node(worker.report)
    worker_records = read_records(records, params.data)
    worker.agree(int(worker_records.digest[:8], 16), f"the records in {records}")
    with checkpoints.here(writes=worker.is_chief, say=worker.report) as own:
        if worker.is_chief:
            for line in own.set_aside_unreadable():
                worker.report(line)
        history = own.history_of(worker)
        for number, metrics in enumerate(history, start=1):
            worker.report(Epoch(number, metrics))
        worker.report(_size_of_network(params, worker_records, worker.strategy.num_replicas_in_sync))
        worker.progress(0)
        callbacks: list[keras.callbacks.Callback] = [ReportEpochs(worker), ReportSteps(worker)]
        if profile and worker.is_chief:
            callbacks.append(ProfileSteps(folder))
        fitted = fit(
            params.model,
            params.train,
            worker_records,
            strategy=worker.strategy,
            checkpoints=own,
            callbacks=callbacks,
        )
    return fitted.parameters


def _size_of_network(params: Params, records: Records, replicas: int) -> NetworkSize:
    return network_size(
        params.model,
        len(records.modalities),
        len(records.regions),
        params.train.patch_size or records.shape,
        cases=max(1, params.train.batch_size // replicas),
        itemsize=4 if params.train.precision == "float32" else 2,
    )


class _ReportLog:
    """Logs the network's size and each epoch once, however often the workers report them, and shows them."""

    def __init__(self, run: Run, bar: ProgressBar) -> None:
        self.run = run
        self.bar = bar
        self.last = 0
        self.size: NetworkSize | None = None

    def __call__(self, report: Epoch | NetworkSize | str) -> None:
        """Log what was not logged before, and show a line that a worker says."""
        if isinstance(report, str):
            show_message(report)
        elif isinstance(report, NetworkSize):
            self._log_size(report)
        else:
            self._log_epoch(report)

    def _log_size(self, size: NetworkSize) -> None:
        if self.size is None:
            show_message(f"the network: {size}")
        self.size = size
        self.run.log_metrics({
            MODEL_RECEPTIVE_FIELD: size.receptive_field,
            MODEL_ACTIVATION_BYTES: size.activation_bytes,
        })  # fmt: skip

    def _log_epoch(self, epoch: Epoch) -> None:
        if epoch.number <= self.last:
            return
        self.last = epoch.number
        self.run.log_metrics(epoch.metrics, step=epoch.number)
        self.bar.show(epoch.number, epoch.metrics)
