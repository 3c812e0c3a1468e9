"""The pictures of the measured comparison of the modes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mis.params.scaling import MODES
from mis.report.tables import seconds
from mis.scaling.cells import MeasuredCell
from mis.scaling.comparison import TERMS, epoch_terms, figures_of
from mis.scaling.reported import GPUS, REPORTED
from mis.scaling.speedup import Speedup, speedups
from mis.scaling.timeline import Stretch
from mis.style import GREY, HALO, INK, MODE_COLOURS, MODE_MARKS, new_figure, png, styled
from mis.words import noun

TERM_COLOURS = dict(zip(TERMS, ("#0072b2", "#d55e00", "#e69f00", "#56b4e9", "#999999"), strict=True))

NEAR_THE_PAPER = GPUS // 4
"""The paper's points, on 32 GPUs, are drawn where so many devices are compared: on fewer they would dwarf the rest."""


def pictures(cells: Sequence[MeasuredCell]) -> Mapping[str, bytes]:
    """Return the pictures of some cells as PNG, by name: of a single cell its timeline, of several all."""
    drawn = {"timeline": png(timeline(cells))}
    if len(cells) > 1:
        drawn["speedup"] = png(speedup(cells))
        drawn["terms"] = png(terms(cells))
    return drawn


@styled
def speedup(cells: Sequence[MeasuredCell]) -> Figure:
    """Draw speed-up and efficiency of each mode by the number of devices, and the time of an epoch by a trial's own."""
    figure = new_figure(4.0)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    points = speedups(figures_of(measured) for measured in cells)
    counts = sorted({point.devices for point in points})
    left.plot(counts, counts, color=GREY, linestyle=(0, (4, 3)), label="ideal")
    _curves(left, points, lambda point: point.speedup, spread=True)
    if max(counts) >= NEAR_THE_PAPER:
        _mark_paper(left)
    left.legend(loc="best")
    _curves(middle, points, lambda point: 100 * point.efficiency)
    _epochs(right, cells)
    for axes, title, label in (
        (left, "Speed-up against one device", "speed-up"),
        (middle, "Efficiency", "speed-up / devices, %"),
        (right, "Time of an epoch", "seconds"),
    ):
        axes.set_title(title)
        axes.set_ylabel(label)
        axes.set_xlabel("devices")
        axes.set_ylim(0, 1.06 * max(axes.get_ylim()[1], 0.1))
    _count_axis(left, counts)
    _count_axis(middle, counts)
    right.set_xlabel("devices of the trial")
    return figure


@styled
def terms(cells: Sequence[MeasuredCell]) -> Figure:
    """Draw what the seconds of an epoch go into, by the number of devices of a trial: medians over all trials."""
    divided = epoch_terms(cells)
    figure = new_figure(1.4 + 0.45 * len(divided))
    axes = figure.subplots()
    names = [f"{devices} {noun(devices, 'device')}" for devices in divided]
    left = [0.0] * len(divided)
    for term, colour in TERM_COLOURS.items():
        values = [by_term[term] for by_term in divided.values()]
        axes.barh(names, values, left=left, color=colour, edgecolor="white", label=term)
        left = [begin + value for begin, value in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds an epoch")
    axes.set_title("What the seconds of an epoch go into, by the devices of a trial")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=len(TERM_COLOURS))
    return figure


@styled
def timeline(cells: Sequence[MeasuredCell]) -> Figure:
    """Draw which trial of the first round had which devices when.

    A bar is a trial; it is as high as the part of the devices that it had. A dashed line shows where the list would end
    if its time on one device were divided by the number of devices.
    """
    first = min(measured.cell.round for measured in cells)
    shown = sorted(
        (measured for measured in cells if measured.cell.round == first),
        key=lambda measured: (measured.cell.devices, MODES.index(measured.cell.mode)),
    )
    bands = [1 + math.log2(measured.cell.devices) for measured in shown]  # many devices must not crowd out few
    gap = 0.6
    total = sum(bands) + gap * len(bands)
    inches = min(0.42, 9.0 / total)
    figure = new_figure(1.2 + inches * total)
    axes = figure.subplots()
    reference_s = next((measured.elapsed_s for measured in shown if measured.cell.devices == 1), None)
    longest_s = max(measured.elapsed_s for measured in shown)
    tops = [sum(bands[:index]) + gap * index for index in range(len(bands))]
    for measured, top, band in zip(shown, tops, bands, strict=True):
        lane = band / measured.cell.devices
        colour = GREY if measured.cell.devices == 1 else MODE_COLOURS[measured.cell.mode]
        for stretch, first_lane, count in _bars(measured):
            numbered = lane * count * inches > 0.15 and stretch.end_s - stretch.begin_s > 0.02 * longest_s
            _bar(axes, stretch, (top + lane * first_lane, lane * count), colour, numbered=numbered)
        if reference_s is not None:
            _mark_ideal(axes, reference_s / measured.cell.devices, top, top + band)
        axes.text(
            measured.elapsed_s + 0.008 * longest_s,
            top + band / 2,
            f"{seconds(measured.elapsed_s)}, {measured.timeline.utilisation:.0%} in use",
            va="center",
            bbox=HALO,
        )
    axes.set_yticks(
        [top + band / 2 for top, band in zip(tops, bands, strict=True)], [_name(measured) for measured in shown]
    )
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(total, -gap)
    axes.set_xlim(0, longest_s * 1.2)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds since the start of the clock")
    ideal = "" if reference_s is None else "; dashed: ideal end"
    axes.set_title(f"Which trial had which devices when (its number in its bar){ideal}")
    return figure


def _curves(axes: Axes, points: Sequence[Speedup], value: Callable[[Speedup], float], *, spread: bool = False) -> None:
    """Draw a curve for each mode, and the lowest and highest speed-up if `spread`."""
    for mode in dict.fromkeys(point.mode for point in points):
        of_mode = [point for point in points if point.mode == mode]
        low = [point.speedup - point.speedup_min for point in of_mode]
        high = [point.speedup_max - point.speedup for point in of_mode]
        axes.errorbar(
            [point.devices for point in of_mode],
            [value(point) for point in of_mode],
            yerr=[low, high] if spread else None,
            label=mode,
            color=MODE_COLOURS[mode],
            marker=MODE_MARKS[mode],
            markersize=7,
            linewidth=2,
            capsize=4,
            alpha=0.85,
        )


def _mark_paper(axes: Axes) -> None:
    """Draw the two speed-ups that the paper reports."""
    for mode, reported in REPORTED.items():
        axes.plot([GPUS], [reported], color=INK, marker=MODE_MARKS[mode], markersize=6, linestyle="none")
        axes.annotate(f"the paper, {mode}", (GPUS, reported), xytext=(-6, 6), textcoords="offset points", ha="right")


def _epochs(axes: Axes, cells: Sequence[MeasuredCell]) -> None:
    """Draw the seconds of the last epoch of each trial by its number of devices, and a line through the medians."""
    times: dict[int, list[float]] = {}
    for measured in cells:
        for trial in measured.trials:
            times.setdefault(trial.devices, []).append(trial.epoch_s)
    counts = sorted(times)
    axes.plot(counts, [median(times[count]) for count in counts], color=INK, linewidth=2)
    for count in counts:
        axes.plot([count] * len(times[count]), times[count], "o", color=INK, markersize=4, alpha=0.4)
    _count_axis(axes, counts)


def _count_axis(axes: Axes, counts: Sequence[int]) -> None:
    axes.set_xticks(counts)
    margin = 0.08 * max(counts)
    axes.set_xlim(min(counts) - margin, max(counts) + margin)


def _bars(measured: MeasuredCell) -> Iterable[tuple[Stretch, int, int]]:
    """Yield each stretch with the first of its devices and how many; devices that are not side by side apart."""
    for stretch, lanes in measured.timeline.lanes():
        for _, run in groupby(enumerate(lanes), key=lambda numbered: numbered[1] - numbered[0]):
            side_by_side = [lane for _, lane in run]
            yield stretch, side_by_side[0], len(side_by_side)


def _bar(axes: Axes, stretch: Stretch, place: tuple[float, float], colour: str, *, numbered: bool) -> None:
    """Draw a stretch between its beginning and its end, at a top and of a height."""
    top, height = place
    width = stretch.end_s - stretch.begin_s
    axes.barh(
        top, width, left=stretch.begin_s, height=height, align="edge", color=colour, edgecolor="white", linewidth=1.5
    )
    if numbered:
        axes.text(
            stretch.begin_s + width / 2, top + height / 2, str(stretch.trial), color="white", ha="center", va="center"
        )


def _mark_ideal(axes: Axes, ideal_s: float, top: float, bottom: float) -> None:
    """Draw a dashed line that is seen on a bar's colour and on white alike."""
    line = [ideal_s, ideal_s], [top - 0.15, bottom + 0.15]
    axes.plot(*line, color="white", linewidth=4)
    axes.plot(*line, color=INK, linestyle=(0, (3, 2)), linewidth=1.6)


def _name(measured: MeasuredCell) -> str:
    cell = measured.cell
    if cell.devices == 1:
        return "one device"
    each = f"\n{cell.each} each" if cell.mode == "hybrid" else ""
    return f"{cell.mode}, {cell.devices} devices{each}"
