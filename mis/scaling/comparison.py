"""The measured comparison as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from mis.files import new_file
from mis.params.scaling import MODES
from mis.scaling.cells import MeasuredCell, TimedTrial
from mis.scaling.speedup import CellFigures, Speedup, speedups
from mis.track.names import EFFICIENCY

Row = dict[str, object]


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        cells: The cells, in the order in which they were measured.
        epochs: Epochs of each trial.
        batch_size: `train.batch_size`.
    """

    cells: Sequence[MeasuredCell]
    epochs: int
    batch_size: int

    @property
    def speedups(self) -> list[Speedup]:
        """The speed-up of each mode on each number of devices."""
        return speedups(figures_of(measured) for measured in self.cells)

    def rows(self) -> list[Row]:
        """Return the speed-ups as rows of a table."""
        return [{**asdict(speedup), EFFICIENCY: speedup.efficiency} for speedup in self.speedups]

    def cell_rows(self) -> list[Row]:
        """Return a row for each cell."""
        rows: list[Row] = []
        for measured in self.cells:
            figures = {name: value for name, value in asdict(figures_of(measured)).items() if name != "cell"}
            nodes = "+".join(map(str, measured.nodes))
            counts = {"restarts": measured.restarts, "lost": measured.lost}
            rows.append({**asdict(measured.cell), "nodes": nodes, **figures, **counts})
        return rows

    def trial_rows(self) -> list[Row]:
        """Return a row for each trial of each cell."""
        return [{**_key(measured), **_trial_row(trial)} for measured in self.cells for trial in measured.trials]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return speed-up and efficiency by mode and number of devices, e.g. `data.speedup_2`."""
        named: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
        for speedup in self.speedups:
            named[speedup.mode][f"speedup_{speedup.devices}"] = speedup.speedup
            named[speedup.mode][f"efficiency_{speedup.devices}"] = speedup.efficiency
        return {mode: figures for mode, figures in named.items() if figures}

    def to_json(self) -> dict[str, object]:
        """Return all figures as data; `runs` is for `python -m mis.scaling simulate --against FILE`."""
        return {
            "speedups": self.rows(),
            "cells": self.cell_rows(),
            "trials": self.trial_rows(),
            "runs": self.runs(),
        }

    def runs(self) -> list[Row]:
        """Return each cell with what its simulation needs, see `mis.scaling.against`."""
        return [self._run(measured) for measured in self.cells]

    def _run(self, measured: MeasuredCell) -> Row:
        """Return a cell with what its simulation needs, taken from the other rounds where there are any."""
        others = [other for other in self.cells if other.cell.round != measured.cell.round] or self.cells
        single = [other for other in others if other.cell.devices == 1]
        lengths_s = [
            median(_length_s(other.trials[number]) for other in single) for number in range(len(measured.trials))
        ]
        speeds: dict[int, list[float]] = {}
        for other in others:
            if other.cell.each == other.cell.devices > 1:  # one trial after another: none disturbs another
                ratios = [seconds / _length_s(trial) for seconds, trial in zip(lengths_s, other.trials, strict=True)]
                speeds.setdefault(other.cell.devices, []).append(median(ratios))
        return {
            "mode": measured.cell.mode,
            "devices": measured.cell.devices,
            "hybrid": measured.cell.each,
            "round": measured.cell.round,
            "nodes": [count for count in measured.nodes if count],
            "trials": lengths_s,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "speeds": {devices: median(ratios) for devices, ratios in speeds.items()},
            "restart_s": measured.restart_s,
            "elapsed_s": measured.elapsed_s,
        }


_COMPARISON = TypeAdapter(Comparison)


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write all that was measured, for `read_comparison`."""
    with new_file(path) as unfinished:
        unfinished.write_bytes(_COMPARISON.dump_json(comparison, indent=1))


def read_comparison(path: Path) -> Comparison:
    """Read what `write_comparison` wrote.

    Raises:
        ValueError: The file is damaged.
    """
    return _COMPARISON.validate_json(path.read_bytes())


def figures_of(measured: MeasuredCell) -> CellFigures:
    """Return what a cell has taken."""
    timeline = measured.timeline
    return CellFigures(
        cell=measured.cell,
        elapsed_s=measured.elapsed_s,
        cold_s=measured.cold_s,
        utilisation=timeline.utilisation,
        device_hours=timeline.device_s / 3600,
        target_s=measured.target_s,
    )


TERMS = ("computing", "all-reduces", "waiting for input", "validation", "set-up, checkpoints")
"""What the seconds of an epoch go into."""


def epoch_terms(cells: Sequence[MeasuredCell]) -> dict[int, dict[str, float]]:
    """Return the seconds of each of `TERMS` by the number of devices of a trial: medians over the trials.

    All-reduces are timed by themselves; replicas that wait for each other, or share caches and memory, are in the
    computing. What a trial takes outside of its epochs is divided among them.
    """
    by_devices: dict[int, list[tuple[float, ...]]] = {}
    for trial in (trial for measured in cells for trial in measured.trials):
        by_devices.setdefault(trial.devices, []).append(
            (
                trial.training_s * (1 - trial.communication_share - trial.input_share),
                trial.training_s * trial.communication_share,
                trial.training_s * trial.input_share,
                max(0.0, trial.epoch_s - trial.training_s),
                max(0.0, trial.beside_s) / trial.epochs,
            )
        )
    return {
        devices: dict(zip(TERMS, (median(column) for column in zip(*trials, strict=True)), strict=True))
        for devices, trials in sorted(by_devices.items())
    }


def _length_s(trial: TimedTrial) -> float:
    return trial.end_s - trial.begin_s


def _key(measured: MeasuredCell) -> Row:
    cell = measured.cell
    return {"mode": cell.mode, "devices": cell.devices, "round": cell.round}


def _trial_row(trial: TimedTrial) -> Mapping[str, object]:
    row = asdict(trial)
    row["trial_devices"] = row.pop("devices")  # `devices` is the cell's
    return row
