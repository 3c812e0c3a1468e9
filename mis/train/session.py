"""One training from its records to its run in MLflow."""

import hashlib
import json
import sys

import keras
from tqdm import tqdm

from mis.data.records import Records, read_records
from mis.params import Params
from mis.settings import Settings
from mis.track.base import TRAIN, Run, tracked
from mis.track.keras import TrackEpochs
from mis.track.mlflow import MlflowTracker
from mis.track.names import SELECTION
from mis.track.provenance import find_origin
from mis.train.checkpoint import Checkpoints
from mis.train.devices import claim
from mis.train.fit import Fitted, fit
from mis.train.strategy import make_strategy

CHECKPOINT_TAG = "mis.checkpoint"


def train(params: Params, settings: Settings) -> Fitted:
    """Train, or go on with the same training where it was killed.

    Returns:
        What came out. Its model lies among the checkpoints, which `Fitted.checkpoints` removes once
        the caller has what it needs; until then the same call returns the same without training.

    Raises:
        MisError: There are no records, or not as many devices.
    """
    records = read_records(settings.records, params.data)
    devices = claim(params.distribute.devices, limit=settings.devices)
    checkpoints = Checkpoints(settings.checkpoints / "train" / fingerprint(params, records))
    with tracked(_run(params, settings, checkpoints)) as run:
        fitted = fit(
            params.model,
            params.train,
            records,
            strategy=make_strategy(devices),
            checkpoints=checkpoints,
            callbacks=[TrackEpochs(run), _Progress(params.train.epochs, done=len(checkpoints.history()))],
        )
        run.log_metrics({f"best/{name}": value for name, value in fitted.summary().items()})
        run.log_file(fitted.best_model, "model")
    return fitted


def fingerprint(params: Params, records: Records) -> str:
    """Return a name for this training: the same for the same records, model and training parameters."""
    content = {"records": records.digest, "model": params.model.model_dump(), "train": params.train.model_dump()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _run(params: Params, settings: Settings, checkpoints: Checkpoints) -> Run:
    """Return the run of the training that was killed, or a new one."""
    tracker = MlflowTracker(settings)
    key = {CHECKPOINT_TAG: checkpoints.folder.name}
    run = tracker.find_run(TRAIN, key) if checkpoints.newest() else None
    if run is not None:
        run.log_params(params.flatten())
        # The process may have died after a checkpoint and before its epoch was logged; what was logged is not repeated.
        for number, epoch in enumerate(checkpoints.history(), start=1):
            run.log_metrics(epoch, step=number)
    else:
        run = tracker.start_run(TRAIN, f"unet-{params.model.norm}", params=params.flatten(), tags=key)
    find_origin(settings, params.data).describe(run)
    return run


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types: its classes are Any
    """A bar over the epochs with the validation Dice."""

    def __init__(self, epochs: int, done: int) -> None:
        super().__init__()
        self.bar = tqdm(total=epochs, initial=done, desc="train", unit="epoch", file=sys.stderr)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Move on."""
        self.bar.set_postfix({"loss": f"{logs['case_loss']:.3f}", SELECTION: f"{logs['val_dice']:.3f}"}, refresh=False)
        self.bar.update(epoch + 1 - self.bar.n)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Leave the bar as it is."""
        self.bar.close()
