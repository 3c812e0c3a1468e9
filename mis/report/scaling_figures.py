"""The pictures of the comparison of both modes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mis.report.results import Measurement, Scaling, TimedTrial
from mis.report.tables import seconds
from mis.scaling.plan import MODE_NAMES, MODES
from mis.style import GREY, HALO, INK, MODE_COLOURS, MODE_MARKS, new_figure, styled


@styled
def speedup(scaling: Scaling) -> Figure:
    """Draw the speed-up of both modes with the ideal line, and beside it every elapsed time."""
    figure = new_figure(4.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    counts = scaling.workers
    left.plot(counts, counts, color=GREY, linestyle=(0, (4, 3)), label="ideal")
    for mode in MODES:
        points = sorted((point for point in scaling.speedups if point.mode == mode), key=lambda point: point.workers)
        middle = [point.speedup for point in points]
        low = [point.speedup - point.speedup_min for point in points]
        high = [point.speedup_max - point.speedup for point in points]
        left.errorbar(
            [point.workers for point in points],
            middle,
            yerr=[low, high],
            label=MODE_NAMES[mode],
            **_mode_line(mode),
            capsize=5,
        )
        _elapsed_curve(right, scaling.measurements, mode)
    left.set_title("Speed-up against one worker")
    left.set_ylabel("speed-up")
    right.set_title("Elapsed time of the list of trials, each round a mark")
    right.set_ylabel("seconds")
    for axes in (left, right):
        axes.set_xlabel("workers")
        axes.set_xticks(counts)
        axes.set_ylim(0, 1.06 * max(axes.get_ylim()[1], 0.1))
        margin = 0.08 * max(counts, default=1)
        axes.set_xlim(1 - margin, max(counts, default=1) + margin)
        axes.legend(loc="best")
    return figure


@styled
def timeline(measurements: Sequence[Measurement]) -> Figure:
    """Draw when each trial of the first round ran, on which of the workers.

    A bar is a trial; it is as high as its share of the workers. A dashed line shows where the list
    would end if its time with one worker were divided by the number of workers.
    """
    first = min((measurement.round for measurement in measurements), default=0)
    shown = sorted(
        (measurement for measurement in measurements if measurement.round == first),
        key=lambda measurement: (measurement.workers, measurement.mode),
    )
    bands = [1 + math.log2(measurement.workers) for measurement in shown]  # many workers must not crowd out few
    gap = 0.6
    total = sum(bands) + gap * len(bands)
    inches = min(0.42, 9.0 / max(total, 1))
    figure = new_figure(1.2 + inches * total)
    axes = figure.subplots()
    reference_s = next((measurement.elapsed_s for measurement in shown if measurement.workers == 1), math.nan)
    longest_s = max((measurement.elapsed_s for measurement in shown), default=1.0)
    tops = [sum(bands[:index]) + gap * index for index in range(len(bands))]
    for measurement, top, band in zip(shown, tops, bands, strict=True):
        lane = band / measurement.workers
        for first_lane, count, trial in _lanes(measurement):
            numbered = lane * count * inches > 0.15 and trial.end_s - trial.begin_s > 0.02 * longest_s
            _bar(axes, trial, (top + lane * first_lane, lane * count), _cell_colour(measurement), numbered=numbered)
        _mark_ideal(axes, reference_s / measurement.workers, top, top + band)
        axes.text(
            measurement.elapsed_s + 0.008 * longest_s,
            top + band / 2,
            seconds(measurement.elapsed_s),
            va="center",
            bbox=HALO,
        )
    axes.set_yticks(
        [top + band / 2 for top, band in zip(tops, bands, strict=True)],
        [_cell_name(measurement) for measurement in shown],
    )
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(total, -gap)
    axes.set_xlim(0, longest_s * 1.1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds since the first trial's start")
    axes.set_title("Who worked when (the number of the trial in its bar); dashed: ideal end")
    return figure


def _mode_line(mode: str) -> dict[str, Any]:
    return {"color": MODE_COLOURS[mode], "marker": MODE_MARKS[mode], "markersize": 8, "linewidth": 2}


def _elapsed_curve(axes: Axes, measurements: Sequence[Measurement], mode: str) -> None:
    """Draw every round's time as a mark, and a line through the medians; one worker belongs to both modes."""
    of_mode = [measurement for measurement in measurements if measurement.mode == mode or measurement.workers == 1]
    counts = sorted({measurement.workers for measurement in of_mode})
    medians = [
        float(np.median([measurement.elapsed_s for measurement in of_mode if measurement.workers == count]))
        for count in counts
    ]
    style = _mode_line(mode)
    axes.plot(counts, medians, color=style["color"], linewidth=style["linewidth"])
    axes.plot(
        [measurement.workers for measurement in of_mode],
        [measurement.elapsed_s for measurement in of_mode],
        linestyle="none",
        label=MODE_NAMES[mode],
        **{**style, "markersize": 7, "alpha": 0.75},
    )


def _lanes(measurement: Measurement) -> list[tuple[int, int, TimedTrial]]:
    """Return the first lane, the number of lanes, and the trial, for each trial in the order of their starts.

    A lane is a worker. As data parallelism a trial has them all, as experiment parallelism one.
    """
    ordered = sorted(measurement.trials, key=lambda trial: (trial.begin_s, trial.trial))
    if measurement.mode == "data":
        return [(0, measurement.workers, trial) for trial in ordered]
    free_s = [0.0] * measurement.workers
    placed = []
    for trial in ordered:
        lane = next((index for index, end_s in enumerate(free_s) if end_s <= trial.begin_s), free_s.index(min(free_s)))
        free_s[lane] = trial.end_s
        placed.append((lane, 1, trial))
    return placed


def _bar(axes: Axes, trial: TimedTrial, place: tuple[float, float], colour: str, *, numbered: bool) -> None:
    """Draw a trial between its start and its end, at a top and of a height."""
    top, height = place
    width = trial.end_s - trial.begin_s
    axes.barh(
        top, width, left=trial.begin_s, height=height, align="edge", color=colour, edgecolor="white", linewidth=1.5
    )
    if numbered:
        axes.text(
            trial.begin_s + width / 2, top + height / 2, str(trial.trial), color="white", ha="center", va="center"
        )


def _cell_colour(measurement: Measurement) -> str:
    return GREY if measurement.workers == 1 else MODE_COLOURS[measurement.mode]


def _mark_ideal(axes: Axes, ideal_s: float, top: float, bottom: float) -> None:
    """Draw a dashed line that is seen on a bar's colour and on white alike."""
    line = [ideal_s, ideal_s], [top - 0.15, bottom + 0.15]
    axes.plot(*line, color="white", linewidth=4)
    axes.plot(*line, color=INK, linestyle=(0, (3, 2)), linewidth=1.6)


def _cell_name(measurement: Measurement) -> str:
    if measurement.workers == 1:
        return "one worker"
    return f"{MODE_NAMES[measurement.mode]},\n{measurement.workers} workers"
