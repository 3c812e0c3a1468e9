"""A study as a page: every figure can be zoomed and tells of the trial under the pointer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna import visualization
from plotly.graph_objects import Figure
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from mis.pages import render
from mis.report.study.drawable import Drawable, dice_of, single_trials_are_fine
from mis.report.study.pictures import wrapped
from mis.tune.trial import trial_name

TEMPLATE = "study.html.j2"


@dataclass(frozen=True)
class Section:
    """A section of the page: its heading, what it shows in words, and its figures as HTML."""

    heading: str
    words: str
    figures: Sequence[str]


def html(drawable: Drawable) -> str:
    """Return the page, with plotly.js in it, so that it opens anywhere."""
    sections = [_section(name, drawable) for name in drawable.figures]
    values = {"plotly": get_plotlyjs(), "summary": _summary(drawable), "sections": sections}
    return render(__package__, TEMPLATE, values)


def _summary(drawable: Drawable) -> str:
    counts = {
        "with a Dice": len(drawable.trials),
        "of them stopped early": len(drawable.stopped),
        "failed": len(drawable.failed),
    }
    ended = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    best = drawable.best
    name = trial_name(best.number)
    return f"Trials: {ended}. The best is trial {name} with {drawable.objectives[0]} {dice_of(best):.4f}."


def _section(name: str, drawable: Drawable) -> Section:
    heading, words, plot = PLOTS[name]
    figures = [_embedded(figure, f"{name}-{number}") for number, figure in enumerate(plot(drawable))]
    return Section(heading, words.format(dice=drawable.objectives[0]), figures)


def _embedded(figure: Figure, identity: str) -> str:
    figure.update_layout(title=None, template="plotly_white", margin={"t": 30})
    config = {"displaylogo": False, "responsive": True}
    # Plotly's own identity is random.
    return str(to_html(figure, config, full_html=False, include_plotlyjs=False, div_id=identity))


def _history(drawable: Drawable) -> list[Figure]:
    figure = visualization.plot_optimization_history(drawable.dice, target_name=drawable.objectives[0])
    figure.update_traces(line_shape="hv", selector={"mode": "lines"})
    return [figure]


def _parallel_coordinates(drawable: Drawable) -> list[Figure]:
    names = drawable.parameters
    figure = visualization.plot_parallel_coordinate(drawable.dice, names, target_name=drawable.objectives[0])
    # Optuna cuts names after 17 characters, which leaves little of some.
    figure.update_xaxes(ticktext=["<br>".join(wrapped(name, 14)) for name in (drawable.objectives[0], *names)])
    return [figure]


def _importances(drawable: Drawable) -> list[Figure]:
    with single_trials_are_fine():
        figure = visualization.plot_param_importances(
            drawable.dice, evaluator=drawable.evaluator, params=list(drawable.parameters)
        )
    return [figure.update_layout(xaxis_title="share of the importance", yaxis_title=None)]


def _slice(drawable: Drawable) -> list[Figure]:
    """Return figures of three parameters each: Optuna makes one of more so wide that it must be scrolled."""
    names = drawable.parameters
    return [
        visualization.plot_slice(drawable.dice, names[first : first + 3], target_name=drawable.objectives[0])
        for first in range(0, len(names), 3)
    ]


def _pareto_front(drawable: Drawable) -> list[Figure]:
    """Return Optuna's figure with the Dice upwards, as in all others."""
    dice, second = drawable.objectives
    figure = visualization.plot_pareto_front(drawable.study, target_names=[dice, second])
    figure.for_each_trace(lambda trace: trace.update(x=trace.y, y=trace.x))
    axis = {"title": second, "type": "log" if drawable.spans_a_decade else "linear"}
    return [figure.update_layout(xaxis=axis, yaxis_title=dice)]


PLOTS: dict[str, tuple[str, str, Callable[[Drawable], list[Figure]]]] = {
    "history": ("History", "{dice} of each trial, and the best until then.", _history),
    "parallel_coordinates": (
        "Parallel coordinates",
        "A line is a trial, the darker the better its {dice}; None stands where it has no such parameter.",
        _parallel_coordinates,
    ),
    "importances": (
        "Importances",
        "How much each parameter has to do with whether a trial is among those of a better {dice} (PED-ANOVA).",
        _importances,
    ),
    "slice": ("Slices", "{dice} against each parameter; the darker, the later the trial.", _slice),
    "pareto_front": (
        "Pareto front",
        "Both objectives of each trial. The red ones are the front: no other trial surpasses them in both.",
        _pareto_front,
    ),
}
"""Heading, words and figures of each section."""
