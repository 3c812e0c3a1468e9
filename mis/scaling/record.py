"""The comparison in MLflow: a run for each mode, and below it a run for each cell, as soon as it has ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mis.params.load import Params
from mis.params.scaling import Mode, each_of
from mis.scaling.cells import MeasuredCell
from mis.scaling.comparison import Comparison, figures_of
from mis.scaling.plan import MODE_NAMES, Cell
from mis.scaling.speedup import CellFigures, Speedup
from mis.track.base import SCALING, Run, Status, Tracker, tracked
from mis.track.names import (
    BATCH_RULE_TAG,
    CELL_TAG,
    COLD_S,
    COMPARISON_TAG,
    DEVICE_HOURS,
    DEVICE_UTILISATION,
    DEVICES_BUSY,
    EFFICIENCY,
    ELAPSED_S,
    GLOBAL_BATCH_SIZE,
    KIND_TAG,
    LEARNING_RATE,
    LR_SCALING_TAG,
    MODE_TAG,
    RESTARTS,
    SPEEDUP,
    SPEEDUP_MAX,
    SPEEDUP_MIN,
    TARGET_S,
    WORKERS_LOST,
)
from mis.track.provenance import Origin
from mis.train.batch_rule import for_replicas


class Recorder:
    """Records a comparison.

    Attributes:
        tracker: Where.
        params: All parameters.
        origin: Where it was measured.
        name: The comparison's name, by which one that goes on finds its runs.
    """

    def __init__(self, tracker: Tracker, params: Params, origin: Origin, name: str) -> None:
        self.tracker = tracker
        self.params = params
        self.origin = origin
        self.name = name
        self._modes: dict[Mode, Run] = {}
        self._cells: list[tuple[MeasuredCell, Run]] = []

    def start(self) -> None:
        """Start the runs of the modes; those of a comparison that goes on are there already."""
        rule = self.params.distribute
        for mode in self.params.scaling.modes:
            tags = {COMPARISON_TAG: self.name, MODE_TAG: mode, KIND_TAG: "comparison"}
            run = self.tracker.open_run(SCALING, MODE_NAMES[mode], key=tags, params=self.params.flatten())
            self.origin.record(run)
            run.set_tags({BATCH_RULE_TAG: rule.batch_rule, LR_SCALING_TAG: rule.lr_scaling})
            self._modes[mode] = run

    def cell(self, measured: MeasuredCell, pictures: Mapping[str, bytes]) -> None:
        """Record a cell that has ended; one that is recorded already, wholly or in part, is completed."""
        cell = measured.cell
        name = f"{cell.name}, round {cell.round + 1}"
        tags = {COMPARISON_TAG: self.name, MODE_TAG: cell.mode, KIND_TAG: "cell", CELL_TAG: name}
        with tracked(self._open_cell(cell, name, tags)) as run:
            self.origin.record(run)
            run.log_metrics({**_taken(figures_of(measured)), RESTARTS: measured.restarts, WORKERS_LOST: measured.lost})
            for second, busy in measured.timeline.busy():
                run.log_metrics({DEVICES_BUSY: busy}, step=round(second))
            log_pictures([run], pictures)
        self._cells.append((measured, run))
        self._log_speedups(cell.round)

    def _log_speedups(self, number: int) -> None:
        """Record the speed-up of each cell of a round as soon as its reference is there."""
        of_round = [(measured, run) for measured, run in self._cells if measured.cell.round == number]
        reference_s = next((measured.elapsed_s for measured, _ in of_round if measured.cell.devices == 1), None)
        if reference_s is not None:
            for measured, run in of_round:
                speedup = reference_s / measured.elapsed_s
                run.log_metrics({SPEEDUP: speedup, EFFICIENCY: speedup / measured.cell.devices})

    def _open_cell(self, cell: Cell, name: str, tags: Mapping[str, str]) -> Run:
        own = {"cell.devices": cell.devices, "cell.devices_per_trial": cell.each, "cell.round": cell.round}
        params, parent = {**self.params.flatten(), **own}, self._modes[cell.mode]
        return self.tracker.open_run(SCALING, name, key=tags, params=params, parent=parent)

    def end(self, comparison: Comparison, pictures: Mapping[str, bytes]) -> None:
        """Record the curves. The step of their metrics is the number of devices, so that MLflow overlays them."""
        for speedup in comparison.speedups:
            self._modes[speedup.mode].log_metrics(
                {**_figures(speedup), **self._in_force(speedup)}, step=speedup.devices
            )
        log_pictures(list(self._modes.values()), pictures)
        for run in self._modes.values():
            run.finish()

    def stop(self, status: Status) -> None:
        """Say that the comparison has failed or was interrupted."""
        for run in self._modes.values():
            run.finish(status)

    def _in_force(self, speedup: Speedup) -> dict[str, float]:
        """Return the batch and the learning rate of a trial, on as many devices as it begins with."""
        replicas = each_of(speedup.mode, speedup.devices, self.params.scaling.hybrid_devices)
        train = for_replicas(self.params.train, self.params.distribute, replicas)
        return {GLOBAL_BATCH_SIZE: train.batch_size, LEARNING_RATE: train.learning_rate}


def _figures(speedup: Speedup) -> dict[str, float]:
    return {
        SPEEDUP: speedup.speedup,
        SPEEDUP_MIN: speedup.speedup_min,
        SPEEDUP_MAX: speedup.speedup_max,
        EFFICIENCY: speedup.efficiency,
        **_taken(speedup),
    }


def _taken(figures: CellFigures | Speedup) -> dict[str, float]:
    """Return what a cell, or a mode on a number of devices, has taken."""
    target = {} if figures.target_s is None else {TARGET_S: figures.target_s}
    return {
        ELAPSED_S: figures.elapsed_s,
        COLD_S: figures.cold_s,
        DEVICE_UTILISATION: figures.utilisation,
        DEVICE_HOURS: figures.device_hours,
        **target,
    }


def log_pictures(runs: Sequence[Run], pictures: Mapping[str, bytes]) -> None:
    """Add pictures, by their names, to the figures of some runs."""
    with TemporaryDirectory() as folder:
        for name, png in pictures.items():
            path = Path(folder) / f"{name}.png"
            path.write_bytes(png)
            for run in runs:
                run.log_file(path, "figures")
