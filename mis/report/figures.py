"""The pictures of training, search and test, each a matplotlib Figure without pyplot's state or a display."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from mis.data.pictures.colours import REGION_COLOURS, REGION_DASHES
from mis.report.results import Case, Epochs, Trial, best_epoch, region_names
from mis.report.tables import NOTHING, parameter, searched_names
from mis.style import (
    GREY,
    HALO,
    INK,
    PALE,
    REGION_MARKS,
    new_figure,
    styled,
)
from mis.track.names import VAL_DICE

STATE_COLOURS = {"best": INK, "completed": "#4477aa", "stopped": PALE, "failed": "#cc3311"}
STATE_MARKS = {"best": "*", "completed": "o", "stopped": "x", "failed": "v"}
STATE_WORDS = {
    "best": "best trial",
    "completed": "completed",
    "stopped": "stopped by the scheduler",
    "failed": "failed",
}

LABELLED = 16
"""Up to this many curves are labelled one by one."""

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
    for axes, title in ((loss, "Soft Dice loss"), (mean, "Dice, mean of regions"), (per_region, "Validation Dice")):
        _epoch_axis(axes, title, len(history))
    for axes in (mean, per_region):
        axes.set_ylim(0, 1)
    _mark_epoch(mean, best_epoch(history))
    return figure


@styled
def trial_curves(trials: Sequence[Trial], best: Trial | None) -> Figure:
    """Draw the validation Dice of every trial against the epoch; a mark at the end says how it ended."""
    figure = new_figure(4.6)
    axes = figure.subplots()
    ends: dict[str, tuple[float, float]] = {}
    for trial in sorted(trials, key=lambda one: one is best):
        state = _state(trial, best)
        colour = STATE_COLOURS[state]
        axes.plot(*_points(trial.epochs, VAL_DICE), color=colour, linewidth=2.6 if state == "best" else 1.6)
        if trial.epochs:
            x, y = trial.epochs[-1]["epoch"], _last(trial.epochs, VAL_DICE)
            size = 13 if state == "best" else 7
            axes.plot([x], [y], linestyle="none", **_mark(state), markersize=size, clip_on=False)
            ends[trial.name] = (x, y)
    if len(ends) <= LABELLED:
        _label_points(axes, ends)
    _epoch_axis(axes, "Validation Dice of each trial", max((len(trial.epochs) for trial in trials), default=1))
    axes.set_ylim(0, _dice_top(trials))
    axes.legend(handles=_state_legend(trials, best), loc="upper left", ncols=2)
    return figure


@styled
def parameters(trials: Sequence[Trial], best: Trial | None) -> Figure:
    """Draw the best validation Dice of every trial against each searched parameter, a panel for each."""
    names = searched_names(trials)
    columns = min(3, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = new_figure(0.5 + 3.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        _parameter_panel(axes, name, trials, best)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for row in panels:
        row[0].set_ylabel("best validation Dice")
    panels[0, 0].set_ylim(0, _dice_top(trials))
    figure.legend(handles=_state_legend(trials, best), loc="outside upper left", ncols=4)
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


def _dice_top(trials: Sequence[Trial]) -> float:
    """Return where the Dice axis of the trials ends: some room above the best, for the legend."""
    scores = (trial.score for trial in trials if not math.isnan(trial.score))
    return min(1.0, max(0.1, 1.25 * max(scores, default=0.8)))


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


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return places moved upwards as little as it takes for neighbours to be `gap` apart.

    >>> spread([0.5, 0.1, 0.51], gap=0.1)
    [0.5, 0.1, 0.6]
    """
    moved = list(places)
    order = sorted(range(len(moved)), key=lambda index: moved[index])
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    return moved


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


def _label_points(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write a trial's name to the right of its last epoch; those at the same epoch make room for each other."""
    for epoch in {x for x, _ in ends.values()}:
        own = {name: y for name, (x, y) in sorted(ends.items()) if x == epoch and not math.isnan(y)}
        for name, place in zip(own, spread(list(own.values()), 0.045), strict=True):
            axes.annotate(
                name,
                (epoch, place),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=INK,
                bbox=HALO,
            )


def _state(trial: Trial, best: Trial | None) -> str:
    return "best" if trial is best else trial.state if trial.state in STATE_MARKS else "completed"


def _mark(state: str) -> dict[str, Any]:
    colour = GREY if state == "stopped" else STATE_COLOURS[state]
    return {"marker": STATE_MARKS[state], "color": colour, "markeredgewidth": 1.8 if state == "stopped" else 0.8}


def _state_legend(trials: Sequence[Trial], best: Trial | None) -> list[Any]:
    """Return a handle for each state that occurs."""
    there = {_state(trial, best) for trial in trials}
    return [
        mpl.lines.Line2D(
            [], [], linestyle="none", markersize=12 if state == "best" else 7, label=STATE_WORDS[state], **_mark(state)
        )
        for state in STATE_MARKS
        if state in there
    ]


def _parameter_panel(axes: Axes, name: str, trials: Sequence[Trial], best: Trial | None) -> None:
    texts = [trial.values.get(name, "") for trial in trials]
    values = axis_values(texts)
    if values is None:
        values = _columns(axes, texts)
    else:
        _number_axis(axes, values)
    for trial, x in zip(trials, values, strict=True):
        state = _state(trial, best)
        # A trial without a score lies on the axis: its parameters are known, and may be why it failed.
        y = 0.0 if math.isnan(trial.score) else trial.score
        size = 14 if state == "best" else 8
        axes.plot([x], [y], linestyle="none", **_mark(state), markersize=size, clip_on=False, zorder=3)
    axes.set_title(name)


def axis_values(texts: Sequence[str]) -> list[float] | None:
    """Return a parameter's values as numbers, or None where columns show it better.

    Those are words, and the few numbers of a choice: values that come up twice or more on average.

    >>> axis_values(["0.01", "0.002", "0.003"]), axis_values(["0.9", "0.99", "0.9", "0.99"]), axis_values(["batch"])
    ([0.01, 0.002, 0.003], None, None)
    """
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    few = len(values) > 1 and 2 * len(set(values)) <= len(values)
    return None if few or not all(map(math.isfinite, values)) else values


def _columns(axes: Axes, texts: Sequence[str]) -> list[float]:
    """Make a column for each value; return where each trial stands, beside those of the same value."""
    names = sorted(set(texts), key=_natural)
    axes.set_xticks(range(len(names)), [parameter(name) or NOTHING for name in names], parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.grid(visible=False, axis="x")
    places = []
    for index, text in enumerate(texts):
        rank, count = texts[:index].count(text), texts.count(text)
        places.append(names.index(text) + 0.5 * ((rank + 0.5) / count - 0.5))
    return places


def _natural(text: str) -> tuple[bool, float, str]:
    """Sort numbers by value, and words after them."""
    try:
        return False, float(text), ""
    except ValueError:
        return True, 0.0, text


def _number_axis(axes: Axes, values: Sequence[float]) -> None:
    if min(values, default=0) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))


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
