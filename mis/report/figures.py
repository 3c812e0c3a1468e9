"""The pictures of training, search and test, each a matplotlib Figure without pyplot's state or a display."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mis.data.pictures.colours import REGION_COLOURS, REGION_DASHES
from mis.report.results import Case, Epochs, best_epoch, region_names
from mis.report.study.curves import spread
from mis.style import (
    GREY,
    INK,
    PALE,
    REGION_MARKS,
    new_figure,
    styled,
)
from mis.track.names import VAL_DICE

JOINED = 20
"""Up to this many cases, the two scores of each are joined by a line."""


@styled
def learning_curves(history: Epochs) -> Figure:
    """Draw loss, Dice and validation Dice per region against the epoch."""
    figure = new_figure(3.9)
    loss, mean, per_region = figure.subplots(1, 3)
    for axes, metric in ((loss, "loss"), (mean, "dice")):
        _curve(axes, history, f"train/{metric}", label="training", color=GREY, linestyle=(0, (4, 2)))
        _curve(axes, history, f"val/{metric}", label="validation", color=INK, linewidth=2)
        axes.legend(loc="best")
    labels = {}
    for region in region_names(list(history[0]) if history else [], f"{VAL_DICE}_"):
        metric = f"{VAL_DICE}_{region.lower()}"
        _curve(per_region, history, metric, color=REGION_COLOURS[region], linestyle=REGION_DASHES[region], linewidth=2)
        labels[region] = _last(history, metric)
    _label_ends(per_region, labels, REGION_COLOURS)
    for axes, title in ((loss, "Loss"), (mean, "Dice, mean of regions"), (per_region, "Validation Dice")):
        _epoch_axis(axes, title, len(history))
    for axes in (mean, per_region):
        axes.set_ylim(0, 1)
    _mark_epoch(mean, best_epoch(history))
    return figure


@styled
def case_scores(cases: Sequence[Case]) -> Figure:
    """Draw the Dice of every test case, a column for each region, and the threshold beside the whole tumour."""
    figure = new_figure(4.2)
    axes = figure.subplots()
    regions = list(cases[0].dice) if cases else []
    columns: list[tuple[str, str, str, list[float]]] = []
    for region in regions:
        colour, mark = REGION_COLOURS[region], REGION_MARKS[region]
        columns.append((f"{region}\nnetwork", colour, mark, [case.dice[region] for case in cases]))
        if region == "WT":
            columns.append(("WT\nbest FLAIR threshold", GREY, "D", [case.threshold_dice_wt for case in cases]))
    for place, (_, colour, mark, values) in enumerate(columns):
        _strip(axes, place, values, colour, mark)
    if "WT" in regions and len(cases) <= JOINED:
        _join_pairs(axes, [case.dice["WT"] for case in cases], [case.threshold_dice_wt for case in cases])
    axes.set_xticks(range(len(columns)), [name for name, *_ in columns])
    axes.set_xlim(-0.6, max(len(columns), 1) - 0.4)
    axes.set_ylim(0, 1.02)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("Dice")
    axes.set_title("Dice of each test case; the bar is the mean")
    return figure


def _points(history: Epochs, metric: str) -> tuple[list[float], list[float]]:
    return [epoch["epoch"] for epoch in history], [epoch.get(metric, math.nan) for epoch in history]


def _last(history: Epochs, metric: str) -> float:
    """Return the last value that is a number."""
    return next((v for v in reversed(_points(history, metric)[1]) if not math.isnan(v)), math.nan)


def _curve(axes: Axes, history: Epochs, metric: str, **style: Any) -> None:  # noqa: ANN401 - matplotlib's own
    # A single epoch is no line: it gets a mark.
    axes.plot(*_points(history, metric), marker="o" if len(history) == 1 else None, **style)


def _epoch_axis(axes: Axes, title: str, epochs: int) -> None:
    axes.set_title(title)
    axes.set_xlim(0.5, max(epochs, 1) + 0.5)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _mark_epoch(axes: Axes, epoch: int | None) -> None:
    if epoch is not None:
        axes.axvline(epoch, color=GREY, linewidth=1, linestyle=":")
        axes.annotate(
            f"best: epoch {epoch}",
            (epoch, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if epoch > sum(axes.get_xlim()) / 2 else 4, 0),
            textcoords="offset points",
            ha="right" if epoch > sum(axes.get_xlim()) / 2 else "left",
            color=GREY,
        )


def _label_ends(axes: Axes, values: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Write each curve's name to the right of its end."""
    there = {name: value for name, value in values.items() if not math.isnan(value)}
    for (name, value), place in zip(there.items(), spread(list(there.values()), 0.06), strict=True):
        axes.annotate(
            f"{name} {value:.2f}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colours[name],
            fontweight="bold",
            annotation_clip=False,
        )


def _strip(axes: Axes, place: int, values: Sequence[float], colour: str, mark: str) -> None:
    """Draw a column: every value, a box of the quartiles where there are enough of them, and the mean."""
    there = [value for value in values if not math.isnan(value)]
    if len(there) >= 5:
        axes.boxplot(
            [there],
            positions=[place],
            widths=0.5,
            showfliers=False,
            manage_ticks=False,
            boxprops={"color": PALE},
            whiskerprops={"color": PALE},
            capprops={"color": PALE},
            medianprops={"color": PALE},
        )
    axes.plot(
        place + case_offsets(len(values)),
        values,
        linestyle="none",
        marker=mark,
        color=colour,
        markersize=8,
        markeredgecolor="white",
        zorder=3,
    )
    if there:
        middle = float(np.mean(there))
        axes.plot([place - 0.3, place + 0.3], [middle, middle], color=colour, linewidth=2, solid_capstyle="butt")
        axes.annotate(
            f"{middle:.3f}", (place + 0.32, middle), va="center", color=INK, fontweight="bold", annotation_clip=False
        )


def case_offsets(count: int) -> NDArray[np.float64]:
    """Return where each case stands in its column, side by side in their order, from -0.2 to 0.2."""
    return 0.2 * np.linspace(-1, 1, count) if count > 1 else np.zeros(count)


def _join_pairs(axes: Axes, left: Sequence[float], right: Sequence[float]) -> None:
    """Join the two values of each case, which stand in the first two columns."""
    for offset, pair in zip(case_offsets(len(left)), zip(left, right, strict=True), strict=True):
        axes.plot([offset, 1 + offset], pair, color=PALE, linewidth=0.9, zorder=1)
