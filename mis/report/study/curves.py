"""The learning curves of a study's trials, with a mark at the end of each that says what became of it."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mis.style import GREY, HALO, INK, PALE, new_figure, styled
from mis.track.names import VAL_DICE
from mis.tune.trial import Trial, TrialState, best_of

BEST = "best"
"""What the best trial is drawn as, whatever its state."""

COLOURS = {
    BEST: INK,
    TrialState.COMPLETED: "#4477aa",
    TrialState.STOPPED: PALE,
    TrialState.DIVERGED: "#aa3377",
    TrialState.FAILED: "#cc3311",
}
MARKS = {
    BEST: "*",
    TrialState.COMPLETED: "o",
    TrialState.STOPPED: "x",
    TrialState.DIVERGED: "D",
    TrialState.FAILED: "v",
}
WORDS = {
    BEST: "best trial",
    TrialState.COMPLETED: "completed",
    TrialState.STOPPED: "stopped early",
    TrialState.DIVERGED: "diverged",
    TrialState.FAILED: "failed",
}

LABELLED = 16
"""Up to this many curves are labelled one by one."""


@styled
def trial_curves(trials: Sequence[Trial]) -> Figure:
    """Draw the validation Dice of every trial against the epoch; a mark at the end says how it ended."""
    best = best_of(trials)
    figure = new_figure(4.6)
    axes = figure.subplots()
    ends: dict[str, tuple[float, float]] = {}
    for trial in sorted(trials, key=lambda trial: trial is best):
        kind = _kind(trial, best)
        scores = [epoch.get(VAL_DICE, math.nan) for epoch in trial.history]
        epochs = range(1, len(scores) + 1)
        axes.plot(epochs, scores, color=COLOURS[kind], linewidth=2.6 if kind == BEST else 1.6)
        if scores:
            last = next((score for score in reversed(scores) if not math.isnan(score)), math.nan)
            size = 13 if kind == BEST else 7
            axes.plot([len(scores)], [last], linestyle="none", **_mark(kind), markersize=size, clip_on=False)
            ends[trial.name] = (len(scores), last)
    if len(ends) <= LABELLED:
        _label_ends(axes, ends)
    axes.set_title("Validation Dice of each trial")
    axes.set_xlim(0.5, max((len(trial.history) for trial in trials), default=1) + 0.5)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(0, _top(trials))
    axes.legend(handles=_legend(trials, best), loc="upper left", ncols=2)
    return figure


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


def _top(trials: Sequence[Trial]) -> float:
    """Return where the Dice axis ends: some room above the best, for the legend."""
    scores = (trial.score for trial in trials if math.isfinite(trial.score))
    return min(1.0, max(0.1, 1.25 * max(scores, default=0.8)))


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write a trial's name to the right of its last epoch; those at the same epoch make room for each other."""
    for epoch in {x for x, _ in ends.values()}:
        scores = {name: y for name, (x, y) in sorted(ends.items()) if x == epoch and not math.isnan(y)}
        for name, place in zip(scores, spread(list(scores.values()), 0.045), strict=True):
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


def _kind(trial: Trial, best: Trial | None) -> str:
    return BEST if trial is best else trial.state


def _mark(kind: str) -> dict[str, Any]:
    is_cross = kind == TrialState.STOPPED  # a pale cross would not be seen
    return {
        "marker": MARKS[kind],
        "color": GREY if is_cross else COLOURS[kind],
        "markeredgewidth": 1.8 if is_cross else 0.8,
    }


def _legend(trials: Sequence[Trial], best: Trial | None) -> list[Any]:
    """Return a handle for each kind of trial that occurs."""
    occurring = {_kind(trial, best) for trial in trials}
    return [
        mpl.lines.Line2D(
            [], [], linestyle="none", markersize=12 if kind == BEST else 7, label=WORDS[kind], **_mark(kind)
        )
        for kind in MARKS
        if kind in occurring
    ]
