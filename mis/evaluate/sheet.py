"""The sheet of an evaluated case: three planes through its largest lesion with truth and prediction, and its scores."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from mis.data.pictures.colours import REGION_COLOURS, REGION_DASHES
from mis.data.pictures.planes import PLANES, lesion_centre, mark_sides, outline, take_plane
from mis.evaluate.cases import CaseScores, Prediction
from mis.evaluate.scores import RegionScores
from mis.files import new_file

DARKEST, BRIGHTEST = -2.5, 3.5
"""The intensities that are drawn black and white, in standard deviations from the brain's mean."""

SIDES_COLOUR = "#d0d0d0"

SHOWN = ("dice", "hd95_mm", "lesion_dice", "sensitivity", "volume_ml", "volume_error_ml")
"""The scores of the table below the planes, as `RegionScores` names them; counts of lesions follow."""

TITLES = ("Dice", "HD95, mm", "lesion Dice", "sensitivity", "volume, ml", "its error, ml", "found / missed / false")


def draw_sheet(prediction: Prediction, modalities: Sequence[str], regions: Sequence[str], path: Path) -> None:
    """Draw a case: FLAIR, T1gd, truth and prediction in three planes, and a table of its scores.

    Args:
        prediction: The case and what was predicted of it.
        modalities: Names of the image's channels.
        regions: Names of the target's channels.
        path: The PNG file to write.
    """
    flair, t1gd = (list(modalities).index(name) for name in ("FLAIR", "T1gd"))
    figure = Figure(figsize=(11, 9.6), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(PLANES) + 1, 4, height_ratios=[*(1 for _ in PLANES), 0.14 + 0.1 * len(regions)])
    axes = [[figure.add_subplot(grid[row, column]) for column in range(4)] for row in range(len(PLANES))]
    centre = lesion_centre(prediction.truth, prediction.predicted)
    # Over the brain the mean is 0, as the air is: without this the air would be drawn grey.
    intensity = np.where(prediction.image.any(axis=-1, keepdims=True), prediction.image, DARKEST)
    for row, (plane, axis) in zip(axes, PLANES, strict=True):
        width, height = (edge for other, edge in enumerate(prediction.spacing_mm) if other != axis)
        for cell, channel in zip(row, (flair, t1gd, flair, flair), strict=True):
            _show(cell, take_plane(intensity[..., channel], axis, centre[axis]), height / width)
        outline(row[2], take_plane(prediction.truth, axis, centre[axis]), regions)
        outline(row[3], take_plane(prediction.predicted, axis, centre[axis]), regions)
        row[0].set_ylabel(f"{plane} {centre[axis]}")
        mark_sides(row[0], plane, SIDES_COLOUR)
    for cell, title in zip(axes[0], ("FLAIR", "T1gd", "truth", "prediction"), strict=True):
        cell.set_title(title)
    _add_table(figure.add_subplot(grid[-1, :]), prediction.scores)
    figure.suptitle(f"{prediction.scores.case}    mean Dice {prediction.scores.mean:.3f}")
    figure.legend(
        handles=[
            Line2D([], [], color=REGION_COLOURS[name], linestyle=REGION_DASHES[name], label=name) for name in regions
        ],
        loc="outside lower center",
        ncols=len(regions),
    )
    with new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=80)


def worst_first(scores: Sequence[CaseScores]) -> list[CaseScores]:
    """Return the scores of cases from the worst to the best mean Dice; those without one come last."""
    return sorted(scores, key=lambda score: (isnan(score.mean), score.mean, score.case))


def _show(axes: Axes, plane: NDArray[np.generic], aspect: float) -> None:
    """Draw a plane in grey, its intensities in standard deviations from the brain's mean."""
    axes.imshow(plane, cmap="gray", origin="lower", vmin=DARKEST, vmax=BRIGHTEST, aspect=aspect)
    axes.set_xticks([])
    axes.set_yticks([])


def _add_table(axes: Axes, scores: CaseScores) -> None:
    axes.set_axis_off()
    table = axes.table(
        [_cells(region) for region in scores.regions.values()],
        rowLabels=list(scores.regions),
        colLabels=TITLES,
        cellLoc="center",
        edges="horizontal",
        bbox=Bbox.from_extents(0.04, 0, 1, 1),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)


def _cells(region: RegionScores) -> list[str]:
    numbers = [getattr(region, name) for name in SHOWN]
    counts = " / ".join(f"{count:g}" for count in (region.lesions_found, region.lesions_missed, region.lesions_false))
    return [*("none" if isnan(number) else f"{number:.3g}" for number in numbers), counts]
