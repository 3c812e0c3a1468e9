"""`--resume`: a study that was interrupted or killed goes on."""

from collections.abc import Sequence
from dataclasses import replace

from mis.data.records.index import read_records
from mis.data.records.prepare import find_records
from mis.errors import MisError
from mis.params.load import parse_override
from mis.settings import Settings
from mis.track.mlflow import MlflowTracker
from mis.tune.session import Draw, Study, run
from mis.tune.study.store import BUDGET, StudyStore


def resume(name: str, settings: Settings, overrides: Sequence[str] = (), *, draw: Draw) -> Study:
    """Go on with a study that was interrupted or killed, with its own parameters.

    No trial that has ended is run again; those that ran go on from their checkpoints.

    Args:
        name: The study's.
        settings: The machine.
        overrides: Another budget, as `name=value`; names are those of `BUDGET`.
        draw: Draws the study's figures.

    Raises:
        MisError: There is no study of this name, another process runs it, its records have changed, or
            something else than its budget would change.
    """
    store = StudyStore.open(settings.checkpoints / "tune" / name)
    values = dict(parse_override(text) for text in overrides)
    for key in values.keys() - set(BUDGET):
        raise MisError(f"a study that goes on may change {', '.join(BUDGET)}", got=key, do="begin a new one")
    settings = replace(settings, records_folder=find_records(store.params.data, settings))
    records = read_records(settings.records)
    if records.digest != store.records:
        raise MisError(
            f"study {name} goes on with the records that it was begun with, got others in {settings.records}",
            do="begin a new one",
        )
    params = store.params.override(values) if values else None
    return run(store, records, MlflowTracker(settings), settings, draw=draw, params=params)
