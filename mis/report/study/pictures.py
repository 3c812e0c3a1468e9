"""The pictures of a study, each a matplotlib Figure without pyplot's state or a display."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from mis.report.study.drawable import Drawable, dice_of
from mis.style import GREY, HALO, INK, PALE, new_figure, styled
from mis.tune.trial import trial_name

BLUE, RED = "#4477aa", "#cc3311"

LATE = mpl.colors.LinearSegmentedColormap.from_list("late", ["#c6dbef", "#08306b"])
"""From the first trial to the last."""
GOOD = mpl.colormaps["viridis_r"]
"""From the worst Dice to the best."""

MISSING = -0.14
"""Below the axes of the parallel coordinates: where a trial passes whose parameter was not searched."""
LABEL_SIZE = (0.035, 0.055)
"""Of a trial's name in the picture of the front, as shares of the axes."""


@styled
def history(drawable: Drawable) -> Figure:
    """Draw the Dice of each trial against its number, and the best so far."""
    figure = new_figure(4.2)
    axes = figure.subplots()
    numbers = [trial.number for trial in drawable.trials]
    scores = [dice_of(trial) for trial in drawable.trials]
    axes.step(numbers, np.maximum.accumulate(scores), where="post", color=INK, linewidth=1.6, label="best so far")
    stopped = drawable.stopped
    ran = [trial for trial in drawable.trials if trial.number not in drawable.early]
    axes.plot([trial.number for trial in ran], list(map(dice_of, ran)), "o", color=BLUE, label="trial")
    if stopped:
        axes.plot([t.number for t in stopped], list(map(dice_of, stopped)), "x", color=GREY, label="stopped early")
    failed = [trial.number for trial in drawable.failed]
    if failed:  # they have no Dice: they stand on the axis
        down = axes.get_xaxis_transform()
        axes.plot(failed, [0.0] * len(failed), "v", color=RED, label="failed", transform=down, clip_on=False)
    best = drawable.best
    label = f"best: trial {trial_name(best.number)}, {dice_of(best):.4f}"
    axes.plot([best.number], [dice_of(best)], "*", color=INK, markersize=14, label=label)
    axes.set_title(f"{drawable.objectives[0]} of each trial")
    axes.set_xlabel("trial")
    axes.set_ylabel(drawable.objectives[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(loc="outside lower center", ncols=5)
    return figure


@styled
def slices(drawable: Drawable) -> Figure:
    """Draw the Dice of each trial against each parameter, a panel for each."""
    names = drawable.parameters
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(0.6 + 3.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        shade = _slice(axes, name, drawable)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for row in panels:
        row[0].set_ylabel(drawable.objectives[0])
    bar = figure.colorbar(shade, ax=panels, label="trial", aspect=30, shrink=0.9, pad=0.01)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.suptitle(f"{drawable.objectives[0]} against each parameter", x=0.01, ha="left", fontweight="bold")
    return figure


@styled
def parallel_coordinates(drawable: Drawable) -> Figure:
    """Draw each trial as a line through its Dice and its parameters."""
    figure = new_figure(5.2)
    axes = figure.subplots()
    names = drawable.parameters
    scores = [dice_of(trial) for trial in drawable.trials]
    span = FloatDistribution(min(scores), max(scores))
    lines = {trial.number: [_place(span, dice_of(trial))] for trial in drawable.trials}
    _upright(axes, 0, span)
    for x, name in enumerate(names, start=1):
        distribution = drawable.distribution(name)
        for trial in drawable.trials:
            lines[trial.number].append(_place(distribution, trial.params[name]) if name in trial.params else MISSING)
        _upright(axes, x, distribution, with_missing=len(drawable.having(name)) < len(drawable.trials))
    for trial in sorted(drawable.trials, key=dice_of):
        is_best = trial.number == drawable.best.number
        line = lines[trial.number]
        axes.plot(line, color=INK if is_best else GOOD(line[0]), linewidth=2.8 if is_best else 1.3, alpha=0.9)
    _name_uprights(axes, [drawable.objectives[0], *names])
    best = trial_name(drawable.best.number)
    axes.set_title(f"A line is a trial, the darker the better its {drawable.objectives[0]}; black: the best, {best}")
    return figure


@styled
def importances(drawable: Drawable) -> Figure:
    """Draw the share of each parameter in what sets good trials apart, the largest at the top."""
    shares = drawable.importances
    figure = new_figure(1.3 + 0.42 * len(shares))
    axes = figure.subplots()
    bars = axes.barh(list(shares), list(shares.values()), color=BLUE, height=0.65)
    axes.bar_label(bars, [f"{share:.2f}" if share >= 0.01 else "< 0.01" for share in shares.values()], padding=4)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of the importance (PED-ANOVA)")
    axes.set_title(f"What sets trials of a good {drawable.objectives[0]} apart, of {len(drawable.trials)} trials")
    return figure


@styled
def pareto_front(drawable: Drawable) -> Figure:
    """Draw both objectives of each trial, and join those that no other one surpasses in both."""
    figure = new_figure(4.8)
    axes = figure.subplots()
    trials = drawable.study.get_trials(deepcopy=False)
    scored = [
        trial
        for trial in trials
        if trial.values and trial.number in {completed.number for completed in drawable.trials}
    ]
    front = drawable.front
    joined = {trial.number for trial in front}
    others = [trial for trial in scored if trial.number not in joined]
    axes.plot(*_both(others), "o", color=PALE, label="surpassed by another trial")
    axes.step(*_both(front), where="post", color=INK, linewidth=1.2)
    axes.plot(*_both(front), "o", color=INK, label="Pareto front")
    axes.margins(0.08)
    if drawable.spans_a_decade:
        _log_axis(axes, _both(scored)[0])
    _label_front(axes, front)
    axes.set_xlabel(drawable.objectives[1])
    axes.set_ylabel(drawable.objectives[0])
    axes.set_title(f"{drawable.objectives[0]} against {drawable.objectives[1]}; up and to the left is better")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


PICTURES: dict[str, Callable[[Drawable], Figure]] = {
    "history": history,
    "parallel_coordinates": parallel_coordinates,
    "importances": importances,
    "slice": slices,
    "pareto_front": pareto_front,
}


# ---- Slices ----


def _slice(axes: Axes, name: str, drawable: Drawable) -> Any:  # noqa: ANN401 - matplotlib's own
    """Draw a panel; return the marks, which have the colour bar's colours."""
    trials, distribution = drawable.having(name), drawable.distribution(name)
    if isinstance(distribution, CategoricalDistribution):
        places = _columns(axes, distribution, trials, name)
    else:
        places = [trial.params[name] for trial in trials]
        _number_axis(axes, distribution, places)
    shade = axes.scatter(
        places,
        [dice_of(trial) for trial in trials],
        c=[trial.number for trial in trials],
        cmap=LATE,
        vmin=0,
        vmax=max(1, drawable.trials[-1].number),
        s=42,
        edgecolors="white",
        linewidths=0.6,
        zorder=3,
    )
    best = drawable.best.number
    for trial, x in zip(trials, places, strict=True):
        if trial.number == best:
            axes.plot([x], [dice_of(trial)], "*", color=INK, markersize=14, zorder=4)
    axes.set_title(_shortened(name, 34))
    if len(trials) < len(drawable.trials):
        axes.set_xlabel(f"in {len(trials)} of {len(drawable.trials)} trials", color=GREY, fontsize=9)
    return shade


def _columns(
    axes: Axes, distribution: CategoricalDistribution, trials: Sequence[FrozenTrial], name: str
) -> list[float]:
    """Make a column for each choice; return where each trial stands, beside those of the same choice."""
    choices = [_shortened(str(choice), 16) for choice in distribution.choices]
    is_tight = sum(map(len, choices)) > 26
    axes.set_xticks(range(len(choices)), choices, rotation=35 if is_tight else 0, ha="right" if is_tight else "center")
    axes.set_xlim(-0.5, len(choices) - 0.5)
    axes.grid(visible=False, axis="x")
    columns = [distribution.to_internal_repr(trial.params[name]) for trial in trials]
    return [
        column + 0.5 * ((columns[:index].count(column) + 0.5) / columns.count(column) - 0.5)
        for index, column in enumerate(columns)
    ]


def _number_axis(axes: Axes, distribution: BaseDistribution, values: Sequence[float]) -> None:
    is_log = isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log
    if is_log:
        axes.set_xscale("log")
    ticks = number_ticks(min(values), max(values), is_log=is_log, is_whole=isinstance(distribution, IntDistribution))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def number_ticks(low: float, high: float, *, is_log: bool, is_whole: bool = False) -> list[float]:
    """Return about five round numbers from `low` to `high`.

    >>> number_ticks(1e-5, 0.2, is_log=True), number_ticks(3, 8, is_log=False, is_whole=True)
    ([1e-05, 0.0001, 0.001, 0.01, 0.1], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    """
    locators: list[Any] = [MaxNLocator(5, integer=is_whole, min_n_ticks=2)]
    if is_log:  # over less than a decade, powers of ten alone are no tick, or one
        locators = [LogLocator(numticks=7), LogLocator(subs=(1.0, 2.0, 5.0), numticks=7), *locators]
    ticks: list[float] = []
    for locator in locators:
        ticks = [tick for tick in _plain(locator.tick_values(low, high)) if low <= tick <= high]
        if len(ticks) > 2:
            break
    return ticks


def _plain(ticks: Sequence[float]) -> list[float]:
    """Return numbers without the rounding errors with which they were computed."""
    return [float(f"{tick:.12g}") for tick in ticks]


# ---- Parallel coordinates ----


def _place(distribution: BaseDistribution, value: Any) -> float:  # noqa: ANN401 - a value of whatever kind
    """Return where on its upright, from 0 to 1, a value lies."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.to_internal_repr(value) / max(1, len(distribution.choices) - 1)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"unknown distribution {distribution}")
    scale = math.log if distribution.log else float
    low, high = scale(distribution.low), scale(distribution.high)
    return (scale(value) - low) / (high - low) if high > low else 0.5


def _upright(axes: Axes, x: int, distribution: BaseDistribution, *, with_missing: bool = False) -> None:
    """Draw one upright axis with its ticks, whose labels have the lines pass behind them."""
    axes.plot([x, x], [0, 1], color=GREY, linewidth=1, zorder=1)
    marks = [(_place(distribution, tick), _tick_text(tick)) for tick in _ticks(distribution)]
    for y, text in [*marks, *([(MISSING, "not searched")] if with_missing else [])]:
        axes.plot([x], [y], "_", color=GREY, markersize=7, zorder=4)
        axes.annotate(
            text,
            (x, y),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8.5,
            bbox=HALO,
            zorder=5,
        )


def _ticks(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return number_ticks(
            distribution.low,
            distribution.high,
            is_log=distribution.log,
            is_whole=isinstance(distribution, IntDistribution),
        ) or [distribution.low]
    return list(distribution.choices) if isinstance(distribution, CategoricalDistribution) else []


def _tick_text(tick: Any) -> str:  # noqa: ANN401 - a value of whatever kind
    is_number = isinstance(tick, int | float) and not isinstance(tick, bool)
    return f"{tick:g}" if is_number else _shortened(str(tick), 12)


def _name_uprights(axes: Axes, names: Sequence[str]) -> None:
    """Write the names below, each in as many lines as its upright's room needs."""
    labels = ["\n".join(wrapped(name, max(9, 126 // len(names)))) for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=9.5, fontweight="bold")
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.55, len(names) - 0.8)
    axes.set_ylim(MISSING - 0.06, 1.05)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def wrapped(name: str, room: int) -> list[str]:
    """Return a name in lines of so many characters, broken behind its dots, or its underscores where that is too long.

    >>> wrapped("model.norm", 14), wrapped("train.learning_rate", 14), wrapped("model.deep_supervision", 14)
    (['model.norm'], ['train.', 'learning_rate'], ['model.', 'deep_', 'supervision'])
    """
    if len(name) <= room:
        return [name]
    parts = [part for dotted in name.split(".") for part in _lines(f"{dotted}.", room + 1)]
    return [_shortened(part, room) for part in [*parts[:-1], parts[-1].removesuffix(".")]]


def _lines(text: str, room: int) -> list[str]:
    lines = [""]
    for word in re.findall("[^_]*_|[^_]+", text):
        if lines[-1] and len(lines[-1]) + len(word) > room:
            lines.append("")
        lines[-1] += word
    return lines


def _shortened(text: str, most: int) -> str:
    """Return a text with its middle left out if it is too long.

    >>> _shortened("train.a_long_name_of_a_parameter", 16)
    'train.a…arameter'
    """
    return text if len(text) <= most else f"{text[: (most - 1) // 2]}…{text[len(text) - most // 2 :]}"


# ---- Pareto front ----


def _both(trials: Sequence[FrozenTrial]) -> tuple[list[float], list[float]]:
    """Return the second objective of each trial, and the first one."""
    return [trial.values[1] for trial in trials], [trial.values[0] for trial in trials]


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log")
    ticks = number_ticks(min(values), max(values), is_log=True)
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _label_front(axes: Axes, front: Sequence[FrozenTrial]) -> None:
    """Name the trials of the front, above and to the left of them, where no trial can be.

    Of those so close that their names would overlap, the one with the best Dice is named.
    """
    last = (math.inf, math.inf)
    for trial in reversed(front):
        point = trial.values[1], trial.values[0]
        x, y = (axes.transScale + axes.transLimits).transform(point)
        if last[0] - x < LABEL_SIZE[0] and last[1] - y < LABEL_SIZE[1]:
            continue
        last = (x, y)
        axes.annotate(
            trial_name(trial.number),
            point,
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color=INK,
        )
