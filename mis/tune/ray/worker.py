"""What a trial does in its worker: it trains, and tells Ray Tune of each epoch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ray import tune

from mis.data.records.index import Records, read_records
from mis.files import read_json, write_json
from mis.track.names import BEST_DICE, VAL_DICE
from mis.train.allocate import Share
from mis.train.checkpoint import Checkpoints, History
from mis.tune.study.store import Asked, StudyStore, Values

TRIAL = "trial"
"""The key of all that a trial is told; below it are these."""
NUMBER, VALUES, CLONED = "number", "values", "cloned"

EPOCH = "epoch"
SESSION = "session"

ATTEMPT, WORKED_S = "attempt", "worked_s"
"""What each report tells beside its epoch: which start of the trial this is, and how long it has worked."""


def told(asked: Asked) -> dict[str, Any]:
    """Return what Ray hands to a trial."""
    return {TRIAL: {NUMBER: asked.number, VALUES: dict(asked.values)}}


def train_one(
    config: dict[str, Any],
    *,
    store: StudyStore,
    share: Share,
    records: Path,
    contents: Mapping[str, np.ndarray] | None,
    session: str,
) -> None:
    """Run one trial, or go on with it; on a lack of memory again with half the batch, where the study says so.

    Args:
        config: See `told`; in a population, of a trial that goes on from another one: what that one was told, its
            values changed, and a mark.
        store: The study.
        share: What the trial has of the cluster.
        records: The folder of records.
        contents: The cases, where the memory of the node has them.
        session: Of the driver. In another one than before, what the trial has reported then is reported again: the
            scheduler that compares trials is a new one.
    """
    begun = time.monotonic()
    own = config[TRIAL]
    number = _own_number(store, own[NUMBER])
    checkpoints = store.checkpoints(number)
    if CLONED in own:
        store.clone(number, _donor(), own[VALUES], own[CLONED])
    elif not store.is_population:
        _report_again(checkpoints, session)

    from mis.quiet import import_tensorflow

    import_tensorflow()
    cases = replace(read_records(records), in_memory=contents)
    within_memory(
        lambda: _train(store, number, own[VALUES], share=share, records=cases, begun=begun),
        lambda: store.halve_batch(number, own[VALUES], share.devices),
    )


def within_memory(train: Callable[[], None], halve: Callable[[], bool]) -> None:
    """Train; where the memory does not suffice, again without what is kept beside, and then with half the batch.

    Args:
        train: Trains, or goes on with it.
        halve: Halves the batch; returns whether it could.

    Raises:
        ResourceExhaustedError: The memory does not suffice for what is left.
    """
    from tensorflow.errors import ResourceExhaustedError

    from mis.train.trial import NETWORKS

    while True:
        try:
            train()
        except ResourceExhaustedError:
            if not NETWORKS.forget() and not halve():
                raise
        else:
            return


def _donor() -> int:
    """Return the number of the trial from whose weights this one goes on.

    Ray's scheduler hands over the checkpoint that it has told of, which is its number. What it was told, which Ray
    copies, may have the number of a trial that it has itself gone on from.
    """
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        raise RuntimeError("Ray Tune lets a trial go on from another one, and gives no checkpoint of it")
    with checkpoint.as_directory() as folder:
        return int((Path(folder) / NUMBER).read_text(encoding="utf-8"))


def _own_number(store: StudyStore, number: int) -> int:
    """Return the number that this trial was first told; in a population it is later told that of another."""
    path = store.folder / "ray" / tune.get_context().get_trial_id()
    if not path.exists():
        write_json(path, number)
    return int(read_json(path))


def _report_again(checkpoints: Checkpoints, session: str) -> None:
    marker = checkpoints.folder / SESSION
    if not marker.exists() or marker.read_text(encoding="utf-8") != session:
        for epoch in reports(checkpoints.history()):
            tune.report(epoch)
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(session, encoding="utf-8")


def _train(store: StudyStore, number: int, values: Values, *, share: Share, records: Records, begun: float) -> None:
    from mis.train.trial import run_trial

    params = store.params.for_trial(store.values(number, values), store.tune.epochs)
    params.check_spread("tune.devices_per_trial", share.devices)

    def report(history: History) -> None:
        newest = {**reports(history)[-1], ATTEMPT: f"{begun}", WORKED_S: time.monotonic() - begun}
        if not store.is_population:
            tune.report(newest)
            return
        # Ray's scheduler lets a trial go on from another one only where that one has told of a checkpoint; this is
        # none: the weights are in the store.
        with TemporaryDirectory() as folder:
            (Path(folder) / NUMBER).write_text(str(number), encoding="utf-8")
            tune.report(newest, checkpoint=tune.Checkpoint.from_directory(folder))

    run_trial(params, share, records, store.checkpoints(number), report)


def reports(history: History) -> list[dict[str, float]]:
    """Return what is reported of each epoch: its metrics, its number, and the best score so far.

    The best so far never falls: a scheduler that compares trials by it does not stop one for a
    single bad epoch, and a stopped trial counts with what it reached.

    >>> [report["best/dice"] for report in reports([{"val/dice": 0.2}, {"val/dice": 0.1}])]
    [0.2, 0.2]
    """
    best, rows = 0.0, []
    for number, epoch in enumerate(history, start=1):
        best = max(best, epoch[VAL_DICE])
        rows.append({**epoch, EPOCH: number, BEST_DICE: best})
    return rows
