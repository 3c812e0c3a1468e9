"""How the pictures of reports and studies look; and a picture as PNG."""

from collections.abc import Callable
from functools import wraps
from io import BytesIO
from typing import ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

REGION_MARKS = {"WT": "o", "TC": "s", "ET": "^"}

MODE_COLOURS = {"data": "#0072b2", "experiment": "#882255", "hybrid": "#b56a00", "elastic": "#117733"}
MODE_MARKS = {"data": "o", "experiment": "s", "hybrid": "^", "elastic": "D"}

INK, GREY, PALE = "#222222", "#767676", "#b5b5b5"

STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a parameter's value may have a $
}
WIDTH = 11.0
"""Inches: at 100 pixels an inch, the page's width."""
PIXELS_PER_INCH = 160
"""Sharp in print and on dense screens."""

HALO = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
"""Behind a label that a curve may pass."""

_Arguments = ParamSpec("_Arguments")


def styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Draw in the report's style and leave matplotlib's own settings alone."""

    @wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(height: float) -> Figure:
    """Return an empty figure as wide as the page, so many inches high."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, the same bytes for the same figure."""
    buffer = BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
