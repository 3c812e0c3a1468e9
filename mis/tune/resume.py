"""`--resume`: a study that was interrupted or killed goes on, and so does one that has ended, with another budget."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mis.data.records.prepare import find_records
from mis.data.records.reader import read_records
from mis.data.records.source import kept_source
from mis.errors import MisError
from mis.params.load import parse_override
from mis.settings import Settings
from mis.track.recording import open_tracker, reader
from mis.train.progress import show_message
from mis.tune.result import StudyResult
from mis.tune.session import Draw, StudyContext, fetch_study, run
from mis.tune.study.store import BUDGET, StudyStore


def resume(
    name: str, settings: Settings, overrides: Sequence[str] = (), *, draw: Draw, retry_failed: bool = False
) -> StudyResult:
    """Go on with a study, with its own parameters.

    No trial that has ended is run again; those that ran go on from their checkpoints. A study that has ended goes on
    with another budget; the models of its earlier trials are with their runs in the tracker.

    Args:
        name: The study's name.
        settings: The machine.
        overrides: Another budget, as `name=value`; names are those of `BUDGET`.
        draw: Draws the study's figures.
        retry_failed: Whether trials that have failed are tried again.

    Raises:
        MisError: There is no study of this name, another process runs it, its records have changed, something else
            than its budget would change, or MLflow's server does not answer.
    """
    store = StudyStore.open(fetch_study(name, settings))
    if store.has_folds:
        # Ended here, it would have no ensemble, and the models that make one would be deleted.
        raise MisError(
            "the folds of a training go on with the command that began them, python -m mis.train or dvc repro", got=name
        )
    values = read_budget(overrides)
    settings = replace(settings, records_folder=_records_of(store, settings))
    records = read_records(settings.records)
    if records.digest != store.records:
        raise MisError(
            f"study {name} goes on with the records that it was begun with, got others in {settings.records}",
            do="begin a new one",
        )
    params = store.params.override(values) if values else None
    with open_tracker(settings) as tracker:
        context = StudyContext(records, tracker, reader(settings), settings, draw)
        return run(store, context, params, retry_failed=retry_failed)


def read_budget(overrides: Sequence[str]) -> dict[str, object]:
    """Return the values of another budget.

    Args:
        overrides: As `name=value`.

    Raises:
        MisError: Something else than a budget would change.
    """
    values = dict(parse_override(text) for text in overrides)
    for key in sorted(values.keys() - set(BUDGET)):
        raise MisError(f"a study that goes on may change {', '.join(BUDGET)}", got=key, do="begin a new one")
    return values


def _records_of(store: StudyStore, settings: Settings) -> Path:
    """Return the folder of a study's records: those of this machine or, where it has none, those of the storage."""
    try:
        return find_records(store.params.data, settings)
    except MisError:
        source = kept_source(store.records, settings, show_message)
        if source is None:
            raise
        return source.on_this_node(show_message)
