"""What finished trainings in MLflow have measured, for the cost model to be fitted to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from mis.params.load import Params
from mis.params.space import fixed_values
from mis.track.base import SCALING, TRAIN, TUNE, RecordedRun, RunStore
from mis.track.names import (
    COMMUNICATION_SHARE,
    CONCURRENT_TRIALS,
    DEVICES,
    EPOCH_S,
    INPUT_SHARE,
    KIND_TAG,
    MACHINE_PREFIX,
    MODEL_PARAMETERS,
    RECORDS_TAG,
    RESTART_S,
    RESTARTS,
    STATE_TAG,
    STEP_S,
    STUDY_TAG,
    TOTAL_S,
    TRACING_S,
    TRIAL_S,
    TRIAL_TAG,
)
from mis.tune.history import WITHOUT_TIME

NEEDED = {STEP_S, EPOCH_S, INPUT_SHARE, COMMUNICATION_SHARE, DEVICES}

BATCH = "in_force.global_batch_size"


@dataclass(frozen=True)
class Observation:
    """What a finished training has measured, in its last epoch.

    Attributes:
        name: The study and the trial, or the experiment.
        devices: How many devices it was spread over.
        batch_size: Cases of a step over all of them.
        step_s: Mean seconds of a step.
        input_share: The part of it in which it waited for its batch.
        communication_share: The part of it that all-reduces took.
        epoch_s: Seconds of an epoch, its validation included.
        start_s: Seconds of the trial beside its epochs at that pace: set-up and tracing; None where that is not known.
        weights: The network's trainable weights; 0 where that is not known.
        at_once: How many such trainings ran at the same time.
    """

    name: str
    devices: int
    batch_size: int
    step_s: float
    input_share: float
    communication_share: float
    epoch_s: float
    start_s: float | None = None
    weights: float = 0.0
    at_once: int = 1


def observe(params: Params, tracker: RunStore, records: str) -> list[Observation]:
    """Return what trainings like these have measured: the same records and parameters, but for those that are searched.

    A training by itself on a CPU is left out, because it has all cores where a trial has one for each device.

    Args:
        params: The parameters.
        tracker: Where the runs are.
        records: The records' digest.
    """
    studies = tracker.find_finished(TUNE, {KIND_TAG: "study"})
    at_once = {run.tags.get(STUDY_TAG, ""): round(run.metrics.get(CONCURRENT_TRIALS, 1)) for run in studies}
    return [
        observation
        for experiment in (TUNE, SCALING, TRAIN)
        for run in tracker.find_finished(experiment, {})
        if _is_alike(run, params, records) and (experiment != TRAIN or f"{MACHINE_PREFIX}gpus" in run.tags)
        if (observation := _observed(run, experiment, at_once)) is not None
    ]


def observed_restart_s(tracker: RunStore) -> float | None:
    """Return the median seconds of a restart in studies that had some; None where there were none."""
    studies = tracker.find_finished(TUNE, {KIND_TAG: "study"})
    seconds = [run.metrics[RESTART_S] for run in studies if run.metrics.get(RESTARTS) and RESTART_S in run.metrics]
    return median(seconds) if seconds else None


def _is_alike(run: RecordedRun, params: Params, records: str) -> bool:
    """Return whether a run has the same records, and parameters of which an epoch takes as long."""
    if not run.metrics.keys() >= NEEDED or run.tags.get(RECORDS_TAG, records) != records:
        return False
    return dict(_alike(params)).items() <= run.params.items()


def _alike(params: Params) -> Iterator[tuple[str, str]]:
    fixed = fixed_values(params.tune.space)
    searched = params.tune.space.keys() - fixed.keys()
    free = {*WITHOUT_TIME, *searched, "train.batch_size", "train.amsgrad"}
    for name, value in {**params.flatten(), **fixed}.items():
        if name.split(".")[0] in ("data", "model", "train") and name not in free:
            yield name, str(value)


def _observed(run: RecordedRun, experiment: str, at_once: Mapping[str, int]) -> Observation | None:
    """Return what a run tells; None where it tells nothing, or where its only epoch has traced the network."""
    devices = round(run.metrics[DEVICES])
    batch_size = run.params.get(BATCH, run.params.get("train.batch_size", ""))
    if run.tags.get(STATE_TAG) == "stopped" and TRACING_S not in run.metrics:
        return None
    if devices < 1 or not batch_size.isdigit() or run.metrics[STEP_S] <= 0:
        return None
    study = run.tags.get(STUDY_TAG)
    return Observation(
        name=f"{study}/{run.tags.get(TRIAL_TAG, '')}" if study else experiment,
        devices=devices,
        batch_size=int(batch_size),
        step_s=run.metrics[STEP_S],
        input_share=run.metrics[INPUT_SHARE],
        communication_share=run.metrics[COMMUNICATION_SHARE],
        epoch_s=run.metrics[EPOCH_S],
        start_s=_start_s(run),
        weights=run.metrics.get(MODEL_PARAMETERS, 0.0),
        at_once=max(1, at_once.get(study or "", 1)),
    )


def _start_s(run: RecordedRun) -> float | None:
    """Return the seconds of a trial before and in its first epoch that later epochs do not take."""
    epochs = run.params.get("train.epochs", "")
    if not {TRIAL_S, TOTAL_S} <= run.metrics.keys() or run.params.get("tune.allocation") == "elastic":
        return None  # an elastic trial has begun more than once
    if TRACING_S in run.metrics:
        tracing_s = run.metrics[TRACING_S]
    elif run.tags.get(STATE_TAG) == "completed" and epochs.isdigit():  # a run of before that was recorded
        tracing_s = run.metrics[TOTAL_S] - int(epochs) * run.metrics[EPOCH_S]
    else:
        return None
    return max(0.0, run.metrics[TRIAL_S] - run.metrics[TOTAL_S]) + max(0.0, tracing_s)
