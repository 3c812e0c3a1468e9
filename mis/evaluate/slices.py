"""A picture of a test case: modalities, and the outlines of truth and prediction."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mis.data.pictures.colours import REGION_COLOURS, REGION_DASHES
from mis.data.pictures.planes import PLANES, outline, take_plane
from mis.evaluate.cases import CaseScores, Prediction
from mis.files import new_file

DARKEST = -2.5
"""The intensity that is drawn black, in standard deviations from the brain's mean."""


def draw_case(prediction: Prediction, modalities: Sequence[str], regions: Sequence[str], path: Path) -> None:
    """Draw three planes through the middle of the tumour: FLAIR, T1gd, truth, and prediction.

    Args:
        prediction: The case and what was predicted of it.
        modalities: Names of the image's channels.
        regions: Names of the target's channels.
        path: The PNG file to write.
    """
    mpl.use("Agg")
    flair, t1gd = (list(modalities).index(name) for name in ("FLAIR", "T1gd"))
    figure = Figure(figsize=(11, 8.4), layout="constrained", facecolor="white")
    axes = figure.subplots(len(PLANES), 4)
    centre = tumour_centre(prediction.truth)
    # Over the brain the mean is 0, as the air is: without this the air would be drawn grey.
    intensity = np.where(prediction.image.any(axis=-1, keepdims=True), prediction.image, DARKEST)
    for row, (plane, axis) in zip(axes, PLANES, strict=True):
        for cell, channel in zip(row, (flair, t1gd, flair, flair), strict=True):
            _show(cell, take_plane(intensity[..., channel], axis, centre[axis]))
        outline(row[2], take_plane(prediction.truth, axis, centre[axis]), regions)
        outline(row[3], take_plane(prediction.predicted, axis, centre[axis]), regions)
        row[0].set_ylabel(f"{plane} {centre[axis]}")
    for cell, title in zip(axes[0], ("FLAIR", "T1gd", "truth", "prediction"), strict=True):
        cell.set_title(title)
    scores = "   ".join(f"{region} {value:.3f}" for region, value in prediction.scores.dice.items())
    figure.suptitle(f"{prediction.scores.case}    Dice  {scores}")
    figure.legend(
        handles=[
            mpl.lines.Line2D([], [], color=REGION_COLOURS[name], linestyle=REGION_DASHES[name], label=name)
            for name in regions
        ],
        loc="outside lower center",
        ncols=len(regions),
    )
    with new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=80)


def tumour_centre(truth: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the index of the voxel in the centre of the tumour, or of the grid where there is no tumour.

    Args:
        truth: bool (x, y, z, region).
    """
    where = np.argwhere(truth.any(axis=-1))
    x, y, z = where.mean(axis=0).round().astype(int) if where.size else np.array(truth.shape[:3]) // 2
    return int(x), int(y), int(z)


def pick_evenly(scores: Sequence[CaseScores], count: int) -> list[CaseScores]:
    """Return the scores of up to `count` cases, evenly spaced from the worst to the best mean Dice."""
    ranked = sorted(scores, key=lambda score: (isnan(score.mean), score.mean))
    picked = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[index] for index in dict.fromkeys(picked.tolist())]


def _show(axes: Axes, plane: NDArray[np.generic]) -> None:
    """Draw a plane in grey, its intensities in standard deviations from the brain's mean."""
    axes.imshow(plane, cmap="gray", origin="lower", vmin=DARKEST, vmax=3.5)
    axes.set_xticks([])
    axes.set_yticks([])
