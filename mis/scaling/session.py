"""The comparison from its parameters to its runs in MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tqdm import tqdm

from mis.data.records.reader import check_patch, read_records
from mis.params.load import Params
from mis.params.scaling import ScalingParams
from mis.scaling.plan import MODE_NAMES, MODES, plan_round
from mis.scaling.speedup import Speedup, speedups
from mis.settings import Settings
from mis.track.base import SCALING, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.names import (
    BATCH_RULE_TAG,
    EFFICIENCY,
    ELAPSED_S,
    GLOBAL_BATCH_SIZE,
    LEARNING_RATE,
    LR_SCALING_TAG,
    MODE_TAG,
    SPEEDUP,
    SPEEDUP_MAX,
    SPEEDUP_MIN,
)
from mis.track.provenance import Origin, find_origin
from mis.train.allocate import allocate
from mis.train.batch_rule import for_replicas
from mis.train.cluster import cluster

FIGURES = (SPEEDUP, SPEEDUP_MIN, SPEEDUP_MAX, EFFICIENCY, ELAPSED_S)
"""Metrics that are attributes of `Speedup`."""


@dataclass(frozen=True)
class Comparison:
    """What was measured, as tables.

    Attributes:
        speedups: For each mode and number of workers.
        cells: A row for each measurement.
        trials: A row for each trial of each measurement, with its start and end within it.
    """

    speedups: Sequence[Speedup]
    cells: Sequence[Mapping[str, object]]
    trials: Sequence[Mapping[str, object]]

    def rows(self) -> list[dict[str, object]]:
        """Return the speed-ups as lines of a table."""
        return [{**asdict(one), "efficiency": one.efficiency} for one in self.speedups]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return speed-up and efficiency by mode and number of workers, e.g. `data.speedup_2`."""
        named: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
        for one in self.speedups:
            named[one.mode][f"speedup_{one.workers}"] = one.speedup
            named[one.mode][f"efficiency_{one.workers}"] = one.efficiency
        return named


def compare(params: Params, settings: Settings) -> Comparison:
    """Measure both modes with every number of workers, and log a run for each mode.

    Raises:
        MisError: There are no records, or fewer devices than workers.
    """
    from mis.scaling.measure import measure_round

    records = read_records(
        settings.records, params.data
    )  # before the cluster starts: it says at once that there are none
    check_patch(records, params.train.patch_size)
    own = params.scaling
    trials = [params.for_trial(values, own.epochs) for values in own.trials]
    for trial in trials:
        trial.check_spread("scaling.workers", max(own.workers))
    measured = []
    with cluster(settings.ray_address) as nodes, _bar(own) as bar:
        shares = {count: allocate(nodes, count, settings.devices) for count in own.workers}
        for number in range(own.rounds):
            for one in measure_round(own.workers, number, trials, settings.records, shares):
                measured.append(one)
                bar.set_postfix_str(f"{one.cell.mode} {one.cell.workers}: {one.elapsed_s:.1f} s")
                bar.update()
    comparison = Comparison(
        speedups=speedups({one.cell: one.elapsed_s for one in measured}),
        cells=[{**asdict(one.cell), "elapsed_s": one.elapsed_s, "startup_s": one.startup_s} for one in measured],
        trials=[{**asdict(one.cell), **asdict(trial)} for one in measured for trial in one.trials],
    )
    origin = find_origin(settings, params.data, records.data_hash, records.left_out)
    _log(comparison, params, settings, origin)
    return comparison


def _bar(params: ScalingParams) -> tqdm:
    cells = len(plan_round(params.workers, 0)) * params.rounds
    return tqdm(total=cells, desc="scaling", unit="cell")


def _log(comparison: Comparison, params: Params, settings: Settings, origin: Origin) -> None:
    """Log a run for each mode, its figures with the number of workers as step: MLflow overlays the curves."""
    tracker = MlflowTracker(settings)
    for mode in MODES:
        own = [one for one in comparison.speedups if one.mode == mode]
        with tracked(
            tracker.start_run(SCALING, MODE_NAMES[mode], params=params.flatten(), tags={MODE_TAG: mode})
        ) as run:
            origin.describe(run)
            rule = params.distribute
            run.set_tags({BATCH_RULE_TAG: rule.batch_rule, LR_SCALING_TAG: rule.lr_scaling})
            for one in own:
                figures = {name: getattr(one, name) for name in FIGURES}
                train = for_replicas(params.train, rule, one.workers if mode == "data" else 1)
                in_force = {GLOBAL_BATCH_SIZE: train.batch_size, LEARNING_RATE: train.learning_rate}
                run.log_metrics({**figures, **in_force}, step=one.workers)
