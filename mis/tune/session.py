"""One study from its parameters to its runs in MLflow."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna

from mis.data.records.index import Records
from mis.data.records.reader import check_patch, read_contents, read_records, size_bytes
from mis.data.records.source import publish
from mis.files import DiskFullError, saying_disk_full
from mis.params.load import Params
from mis.params.tune import STUDY_NAME
from mis.settings import Settings
from mis.storage.path import remote_folder
from mis.track.base import TUNE, Run, RunStore, Tracker, tracked
from mis.track.names import (
    BEGUN_BY_TAG,
    BEST_TRIAL_TAG,
    CONCURRENT_TRIALS,
    DATA_IN_MEMORY_BYTES,
    DEVICES_PER_TRIAL,
    KIND_TAG,
    PARETO_FRONT_TAG,
    RECORDS_TAG,
    STUDY_TAG,
    TRIAL_TAG,
)
from mis.track.provenance import find_origin
from mis.track.recording import open_tracker, reader
from mis.track.store import reason_of
from mis.train.progress import show_message
from mis.tune.elastic import Experience
from mis.tune.history import starting_points
from mis.tune.ray.driver import run_study
from mis.tune.resources import Resources, resources
from mis.tune.result import StudyResult
from mis.tune.study import messages
from mis.tune.study.code import code_version, is_other_code, name_of
from mis.tune.study.kept import bring_back, bring_back_all, is_kept, kept_on_storage
from mis.tune.study.layout import STUDY_JSON
from mis.tune.study.store import StudyStore
from mis.tune.trial import Trial

Draw = Callable[[optuna.Study, Path, Sequence[Trial]], Sequence[Path]]
"""Draws a study's figures into a folder, and returns their files: `mis.report.study.figures.write_figures`."""


@dataclass(frozen=True)
class StudyContext:
    """What a study runs with.

    Attributes:
        records: The cases and their split.
        tracker: Where its runs are recorded.
        earlier: Where earlier runs are read; None where that is done without.
        settings: The machine.
        draw: Draws its figures, which its run has as artifacts.
    """

    records: Records
    tracker: Tracker
    earlier: RunStore | None
    settings: Settings
    draw: Draw


def tune(
    params: Params, settings: Settings, *, draw: Draw, name: str | None = None, go_on: bool = False
) -> StudyResult:
    """Search over the devices of the cluster, each trial a run below the study's.

    Args:
        params: All parameters; `params.tune` is the search.
        settings: The machine.
        draw: Draws the study's figures.
        name: The study's name; by default the time and some random digits.
        go_on: Whether this is a stage of the pipeline: then it goes on with a study that it began with the same
            parameters, records and code, and whose results it has not taken, also where that was finished by hand.

    Raises:
        MisError: There are no records, a trial wants more devices than there are, there is no such study
            to start from, the name is taken or cannot be a folder's, MLflow's server does not answer, or no trial
            finished an epoch.
    """
    params.check_spread("tune.devices_per_trial", params.tune.devices)
    records = read_records(settings.records, params.data)  # before the cluster starts: it says at once of none
    check_patch(records, params.train.patch_size)
    folder = studies_folder(settings)
    if name is not None:
        check_name(name, settings)
    code = code_version(settings.workspace)
    with open_tracker(settings) as tracker:
        context = StudyContext(records, tracker, reader(settings), settings, draw)
        if go_on:
            fetch_studies(settings)
        store = StudyStore.find(folder, params, records.digest, code, say=show_message) if go_on else None
        if store is not None:
            if not is_other_code(store.code, code):
                return run(store, context)
            show_message(messages.begun_by_other_code(store.name, store.code, code))
        name = name or f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        starts = starting_points(params, context.earlier)
        return run(
            StudyStore.create(folder / name, params, records.digest, starts, stage=go_on, code=code),
            context,
        )


def studies_folder(settings: Settings) -> Path:
    """Return the folder of all studies."""
    return settings.checkpoints / "tune"


def fetch_studies(settings: Settings) -> None:
    """Fetch the studies that other machines have begun, where studies are kept on a server."""
    remote = remote_folder(settings, studies_folder(settings))
    if remote is not None:
        bring_back_all(studies_folder(settings), remote, show_message)


def fetch_study(name: str, settings: Settings) -> Path:
    """Return the folder of a study; where studies are kept on a server, what is newer there is fetched first."""
    folder = studies_folder(settings) / name
    remote = remote_folder(settings, folder)
    if remote is not None:
        bring_back(folder, remote, show_message)
    return folder


def is_there(name: str, settings: Settings) -> bool:
    """Return whether there is a study of a name, here or where studies are kept."""
    folder = studies_folder(settings) / name
    remote = remote_folder(settings, folder)
    return (folder / STUDY_JSON).is_file() or (remote is not None and is_kept(remote, show_message))


def check_is_there(name: str, settings: Settings) -> None:
    """Refuse the name of a study that cannot go on, because there is none.

    Raises:
        MisError: There is no study of this name, here or where studies are kept.
    """
    if not is_there(name, settings):
        raise messages.unknown_study(studies_folder(settings) / name)


def check_name(name: str, settings: Settings) -> None:
    """Refuse a name for a new study that no folder can have, or that another study has or had.

    Raises:
        MisError: It cannot be a folder's, is taken, or runs of it are in MLflow, which is not asked where the command
            does without.
    """
    if not STUDY_NAME.fullmatch(name):
        raise messages.bad_name(name)
    if (studies_folder(settings) / name).exists() or is_there(name, settings):
        raise messages.name_taken(name, has_folder=True)
    earlier = reader(settings)
    if earlier is not None and earlier.find_run(TUNE, {STUDY_TAG: name}, go_on=False) is not None:
        raise messages.name_taken(name, has_folder=False)


def run(
    store: StudyStore, context: StudyContext, params: Params | None = None, *, retry_failed: bool = False
) -> StudyResult:
    """Run a study that is on disk to its end, from wherever it is.

    Args:
        store: The study.
        context: What it runs with.
        params: Its own parameters with another budget.
        retry_failed: Whether trials that have failed are tried again; they are where all have failed.
    """
    store = replace(store, remote=remote_folder(context.settings, store.path))
    with store.locked(), kept_on_storage(store, show_message) as kept, _saying_way_on(store):
        store = kept
        show_message(f"study {store.name}; if it is interrupted: {store.way_on}")
        for line in store.mend():
            show_message(line)
        store = store if params is None else store.with_params(params)
        store.reopen()
        now = code_version(context.settings.workspace)
        if is_other_code(store.code, now):
            show_message(messages.goes_on_with_other_code(store.code, now))
        if (retry_failed or store.all_failed) and (again := store.try_failed_again()):
            show_message(messages.tried_again(again))
        ended = len(store.trials())
        if begun := ended + len(store.interrupted()):
            show_message(messages.goes_on(ended, begun, store.total))
        size, what = size_bytes(context.records), f"study {store.name}"
        with resources(store.tune, size, context.settings, show_message, what=what) as available:
            result = _run_on(available, store, context, name_of(store.code, now) if store.code else "")
        if result.failed and not store.has_folds:
            show_message(messages.failed(result.failed, store.name))
        return result


@contextmanager
def _saying_way_on(store: StudyStore) -> Iterator[None]:
    """Where the disk is full, say how the study goes on: the command that began it would begin another one."""
    try:
        with saying_disk_full(store.path):
            yield
    except DiskFullError as error:
        if store.has_folds:
            raise
        raise DiskFullError(error.folder, f"`{store.way_on}`") from error


def _run_on(available: Resources, store: StudyStore, context: StudyContext, begun_by: str) -> StudyResult:
    params, records, tracker = store.params, context.records, context.tracker
    origin = find_origin(context.settings, params.data, records.data_hash, records.left_out)

    def describe(run: Run) -> None:
        origin.record(run)
        run.set_tags({RECORDS_TAG: records.digest})

    key = {STUDY_TAG: store.name, KIND_TAG: "study"}
    name = store.name if store.has_folds else f"study-{store.name}"
    with tracked(tracker.open_run(TUNE, name, key=key)) as study_run:
        describe(study_run)
        if begun_by:
            study_run.set_tags({BEGUN_BY_TAG: begun_by})
        study_run.log_params(params.flatten())
        study_run.log_metrics(
            {
                CONCURRENT_TRIALS: available.share.concurrent,
                DEVICES_PER_TRIAL: params.tune.devices_per_trial,
                DATA_IN_MEMORY_BYTES: size_bytes(records) if available.in_memory else 0,
            }
        )
        try:
            trials = run_study(
                store,
                available.share,
                records=publish(records, context.settings, show_message),
                contents=partial(read_contents, records) if available.in_memory else None,
                tracker=tracker,
                study=study_run,
                describe=describe,
                limit=available.limit,
                experience=_experience(store, records, context.earlier),
            )
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
            show_message(f"what has ended is kept; go on with {store.way_on}")
            raise
        result = StudyResult(store.name, trials, store.seconds, store, available.share.concurrent, study_run)
        _record(result, study_run, context)
    return result


def _experience(store: StudyStore, records: Records, earlier: RunStore | None) -> Experience | None:
    """Return what earlier studies on the same records have measured of elastic trials; None where this has none."""
    if store.tune.allocation == "fixed" or earlier is None:
        return None
    try:
        studies = earlier.find_finished(TUNE, {RECORDS_TAG: records.digest, KIND_TAG: "study"})
    except Exception as error:  # whatever a store, or the network before it, may raise
        show_message(
            f"what earlier searches have measured is done without: MLflow does not answer ({reason_of(error)})"
        )
        return None
    return Experience.of([study.metrics for study in studies])


def _record(result: StudyResult, run: Run, context: StudyContext) -> None:
    """Record a study's figures, tables, pictures and models; of folds none is the best one."""
    run.log_metrics(result.summary())
    with TemporaryDirectory() as folder:
        table = Path(folder) / "trials.csv"
        result.write_table(table)
        run.log_file(table)
        if not result.store.has_folds:
            _record_best(result, run, context, Path(folder))
    for trial in result.trials:
        if trial.best_model is not None:
            key = {STUDY_TAG: result.name, TRIAL_TAG: trial.name}
            context.tracker.add_to_run(TUNE, key).log_file(trial.best_model, "model")


def _record_best(result: StudyResult, run: Run, context: StudyContext, folder: Path) -> None:
    """Record which trial is the best, its parameters and its model, and pictures of what was searched."""
    run.set_tags({BEST_TRIAL_TAG: result.best.name})
    journal, values = result.store.journal, folder / "best_params.yaml"
    if front := journal.pareto_front():
        run.set_tags({PARETO_FRONT_TAG: ", ".join(front)})
    result.write_best_params(values)
    run.log_file(values)
    for figure in context.draw(journal.study, folder / "figures", result.trials):
        run.log_file(figure, "figures")
    if result.best.best_model is not None:
        run.log_file(result.best.best_model, "model")
