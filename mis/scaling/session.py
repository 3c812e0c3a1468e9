"""The comparison from its parameters to its runs in MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tqdm import tqdm

from mis.data.records.reader import check_patch, read_records
from mis.errors import MisError
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
from mis.train.allocate import Node, Share, allocate, device_counts
from mis.train.batch_rule import for_replicas
from mis.train.cluster import cluster

FIGURES = (SPEEDUP, SPEEDUP_MIN, SPEEDUP_MAX, EFFICIENCY, ELAPSED_S)
"""The metrics that are attributes of `Speedup`."""


@dataclass(frozen=True)
class Comparison:
    """The measurements of the comparison, as tables.

    Attributes:
        speedups: The speed-up of each mode and number of workers.
        cells: A row for each measurement, with its cell.
        trials: A row for each trial of each measurement, with its start and end in seconds after the measurement's
            start.
    """

    speedups: Sequence[Speedup]
    cells: Sequence[Mapping[str, object]]
    trials: Sequence[Mapping[str, object]]

    def rows(self) -> list[dict[str, object]]:
        """Return the speed-ups as rows of a table."""
        return [{**asdict(speedup), EFFICIENCY: speedup.efficiency} for speedup in self.speedups]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return speed-up and efficiency by mode and number of workers, e.g. `data.speedup_2`."""
        named: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
        for speedup in self.speedups:
            named[speedup.mode][f"speedup_{speedup.workers}"] = speedup.speedup
            named[speedup.mode][f"efficiency_{speedup.workers}"] = speedup.efficiency
        return named


def compare(params: Params, settings: Settings) -> Comparison:
    """Measure both modes with every number of workers, and log a run for each mode.

    Raises:
        MisError: There are no records, or fewer devices than workers.
    """
    from mis.scaling.measure import measure_round

    # Before the cluster starts, so that an error of the input is raised at once.
    records = read_records(settings.records, params.data)
    check_patch(records, params.train.patch_size)
    scaling = params.scaling
    trials = [params.for_trial(values, scaling.epochs) for values in scaling.trials]
    for trial in trials:
        trial.check_spread("scaling.workers", max(scaling.workers))
    measurements = []
    with cluster(settings.ray_address) as nodes, _progress_bar(scaling) as bar:
        shares = {count: _share(nodes, count, settings) for count in scaling.workers}
        for round_number in range(scaling.rounds):
            for measurement in measure_round(scaling.workers, round_number, trials, settings.records, shares):
                measurements.append(measurement)
                cell = measurement.cell
                bar.set_postfix_str(f"{cell.mode} {cell.workers}: {measurement.elapsed_s:.1f} s")
                bar.update()
    comparison = Comparison(
        speedups=speedups({measurement.cell: measurement.elapsed_s for measurement in measurements}),
        cells=[
            {**asdict(measured.cell), "elapsed_s": measured.elapsed_s, "startup_s": measured.startup_s}
            for measured in measurements
        ],
        trials=[{**asdict(measured.cell), **asdict(trial)} for measured in measurements for trial in measured.trials],
    )
    origin = find_origin(settings, params.data, records.data_hash, records.left_out)
    _log(comparison, params, settings, origin)
    return comparison


def _share(nodes: Sequence[Node], devices: int, settings: Settings) -> Share:
    """Return the share of a process with so many devices.

    Raises:
        MisError: There are not so many, or no node has so many.
    """
    share = allocate(nodes, devices, settings.devices)
    if share.processes > 1:
        most = max(device_counts(nodes))
        raise MisError(f"scaling.workers must be at most the {most} devices of a node, for now", got=devices)
    return share


def _progress_bar(params: ScalingParams) -> tqdm:
    """Return a progress bar over the cells of all rounds."""
    cells = len(plan_round(params.workers, 0)) * params.rounds
    return tqdm(total=cells, desc="scaling", unit="cell")


def _log(comparison: Comparison, params: Params, settings: Settings, origin: Origin) -> None:
    """Log a run for each mode. The step of its metrics is the number of workers, so that MLflow overlays the curves."""
    tracker = MlflowTracker(settings)
    for mode in MODES:
        curve = [speedup for speedup in comparison.speedups if speedup.mode == mode]
        with tracked(
            tracker.start_run(SCALING, MODE_NAMES[mode], params=params.flatten(), tags={MODE_TAG: mode})
        ) as run:
            origin.record(run)
            rule = params.distribute
            run.set_tags({BATCH_RULE_TAG: rule.batch_rule, LR_SCALING_TAG: rule.lr_scaling})
            for point in curve:
                figures = {name: getattr(point, name) for name in FIGURES}
                train = for_replicas(params.train, rule, point.workers if mode == "data" else 1)
                in_force = {GLOBAL_BATCH_SIZE: train.batch_size, LEARNING_RATE: train.learning_rate}
                run.log_metrics({**figures, **in_force}, step=point.workers)
