"""What earlier studies in the tracker tell a new one: where to begin, and how long it will take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from mis.errors import MisError
from mis.params.base import Scalar
from mis.params.load import Params
from mis.params.space import fixed_values
from mis.track.base import TUNE, RecordedRun, RunStore
from mis.track.names import BEST_DICE, EPOCH_S, RECORDS_TAG, STATE_TAG, STUDY_TAG, TOTAL_S, TRIAL_S, TRIAL_TAG
from mis.tune.study import messages
from mis.tune.trial import TrialState, Values


def starting_points(params: Params, earlier: RunStore | None) -> list[Values]:
    """Return the points that `tune.start` gives, and those of the best trials of the study that it names.

    Values outside the space are left out of a point: they are suggested.

    Args:
        params: The study's.
        earlier: Where earlier runs are read; None where a command does without.

    Raises:
        MisError: There is no such study, or it cannot be read, or nothing of it lies in the space.
    """
    start = params.tune.start
    if start.study is None:
        return list(start.points)
    if earlier is None:
        raise messages.needs_server(f"the study of tune.start.study, {start.study},")
    trials = [
        run
        for run in _trials(earlier, {STUDY_TAG: start.study})
        if BEST_DICE in run.metrics and run.tags.get(STATE_TAG) != TrialState.DIVERGED
    ]
    if not trials:
        raise MisError("tune.start.study must name a study in MLflow with ended trials", got=start.study)
    best = sorted(trials, key=lambda run: (-run.metrics[BEST_DICE], run.tags[TRIAL_TAG]))[: start.best]
    points = [point for run in best if (point := dict(_in_space(run, params)))]
    if not points:
        raise MisError(
            f"the best trials of study {start.study} must have values in tune.space",
            got="none",
            do="widen the space, or set tune.start.study to null",
        )
    return [*start.points, *points]


WITHOUT_TIME = {
    f"train.{name}"
    for name in (
        "epochs", "patience", "seed", "learning_rate", "learning_rate_decay", "warmup_epochs", "beta_1", "beta_2",
        "momentum", "weight_decay", "dice_smooth", "tversky_alpha", "focal_gamma",
    )
}  # fmt: skip
"""What an epoch takes as long with, whatever its value."""


@dataclass(frozen=True)
class Estimate:
    """How long a study will take, at most: without early stopping.

    Attributes:
        seconds: The estimate.
        trials: Earlier trials from which it comes.
        epoch_s: What an epoch took, as a median.
        beside_s: What a trial took beside its epochs, as a median.
    """

    seconds: float
    trials: int
    epoch_s: float
    beside_s: float


def estimate(params: Params, tracker: RunStore, records: str, trials: int, concurrent: int) -> Estimate | None:
    """Return an estimate from trials on the same records, with the same parameters but for those searched.

    Args:
        params: The study's.
        tracker: Where earlier trials are.
        records: The records' digest.
        trials: How many there will be.
        concurrent: How many at once.

    Returns:
        None if there were no such trials.
    """
    fixed = fixed_values(params.tune.space)
    searched = params.tune.space.keys() - fixed.keys()
    alike = {
        name: str(value)
        for name, value in {**params.flatten(), **fixed}.items()
        if name.split(".")[0] in ("model", "train", "distribute") and name not in WITHOUT_TIME | searched
    }
    found = [
        run
        for run in _trials(tracker, {RECORDS_TAG: records})
        if {TRIAL_S, TOTAL_S, EPOCH_S} <= run.metrics.keys()
        and alike.items() <= run.params.items()
        and float(run.params["tune.devices_per_trial"]) == params.tune.devices_per_trial
    ]
    if not found:
        return None
    epoch_s = median(run.metrics[EPOCH_S] for run in found)
    beside_s = max(0.0, median(run.metrics[TRIAL_S] - run.metrics[TOTAL_S] for run in found))
    rounds = -(-trials // concurrent)
    return Estimate(rounds * (params.tune.epochs * epoch_s + beside_s), len(found), epoch_s, beside_s)


def _trials(tracker: RunStore, tags: dict[str, str]) -> Sequence[RecordedRun]:
    return [run for run in tracker.find_finished(TUNE, tags) if TRIAL_TAG in run.tags]


def _in_space(run: RecordedRun, params: Params) -> Iterator[tuple[str, Scalar]]:
    for name, searched_range in params.tune.space.items():
        value = searched_range.parse(run.params.get(name, ""))
        if value is not None and searched_range.contains(value):
            yield name, value
