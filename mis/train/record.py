"""The run of a training: the one that is gone on with, or a new one."""

import uuid

from mis.data.records.index import Records
from mis.files import new_file
from mis.params.load import Params
from mis.settings import Settings
from mis.track.base import TRAIN, Run, Tracker
from mis.track.names import CHECKPOINT_TAG, RUN_KEY_TAG
from mis.track.provenance import find_origin
from mis.train.checkpoint import Checkpoints
from mis.train.remote_checkpoints import RemoteCheckpoints

RUN_KEY = "run-key"
"""The file beside the checkpoints that tells the run of this training from those of earlier ones."""


def open_run(tracker: Tracker, params: Params, settings: Settings, checkpoints: Checkpoints, records: Records) -> Run:
    """Return the run of the training that was killed, or a new one."""
    rule = params.distribute
    name = f"unet-{params.model.norm}" + (f"-{rule.chosen}-{rule.devices}" if rule.devices > 1 else "")
    run = tracker.open_run(TRAIN, name, key=key_of_run(checkpoints), params=params.flatten())
    find_origin(settings, params.data, records.data_hash, records.left_out).record(run)
    return run


def key_of_run(checkpoints: Checkpoints) -> dict[str, str]:
    """Return the tags by which the run of a training is found: those of the one that is gone on with, or new ones.

    The name of the folder alone would find the run of an earlier training that has ended.
    """
    if isinstance(checkpoints, RemoteCheckpoints):  # on whatever machine it goes on
        return {CHECKPOINT_TAG: checkpoints.folder.parent.name, RUN_KEY_TAG: checkpoints.identity}
    path, key = checkpoints.folder / RUN_KEY, {CHECKPOINT_TAG: checkpoints.folder.name}
    if not checkpoints.newest():
        with new_file(path) as unfinished:
            unfinished.write_text(uuid.uuid4().hex, encoding="ascii")
    if path.exists():  # not in those of earlier versions
        key[RUN_KEY_TAG] = path.read_text(encoding="ascii")
    return key
