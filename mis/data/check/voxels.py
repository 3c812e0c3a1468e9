"""Checks of a case's voxels: finite, no modality empty, constant or there twice, a label of whole known values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mis.data.case import MODALITIES, Case, DataSet
from mis.data.check.collector import Collector
from mis.data.geometry import Shape
from mis.data.records.preprocess import Brain, moments

WHOLE = 1e-3
"""A label value that differs from a whole number by less is that number."""

MOST_BRAIN = 0.9
"""Largest share of a grid's voxels that may be brain; in BraTS it is a fifth."""
MOST_OUTSIDE = 0.05
"""Largest share of a label's voxels that may be air: a real tumour's border lies some voxels beyond the brain's."""

NOT_FINITE = "NaN, infinity or more than float32 holds in {count} of the voxels of {modality}"


def check_finite(case: Case, channels: Sequence[NDArray[Any]], findings: Collector) -> bool:
    """Check that the voxels of a case's files are finite, as float32 too.

    Args:
        case: The case.
        channels: (x, y, z) of each modality, as the files have it.
        findings: Where a finding goes.

    Returns:
        Whether all of them are.
    """
    good = True
    for file, modality, channel in zip(modality_files(case), MODALITIES, channels, strict=True):
        if channel.dtype.kind == "f":
            with np.errstate(over="ignore"):
                bad = np.count_nonzero(~np.isfinite(channel.astype(np.float32)))
            if bad:
                findings.add("not-finite", file, NOT_FINITE.format(count=bad, modality=modality))
                good = False
    return good


def check_modalities(case: Case, brain: Brain, findings: Collector) -> None:
    """Check that each modality is finite over the brain, not empty, not constant, and not the same as another."""
    files = modality_files(case)
    values = brain.values
    with np.errstate(all="ignore"):
        low, high = (values.min(axis=0), values.max(axis=0)) if len(values) else np.zeros((2, len(MODALITIES)))
        mean, deviation = moments(values) if len(values) else np.zeros((2, len(MODALITIES)))
    finite = np.isfinite(low) & np.isfinite(high)
    for number, name in enumerate(MODALITIES):
        if not finite[number]:
            bad = np.count_nonzero(~np.isfinite(values[:, number]))
            findings.add("not-finite", files[number], NOT_FINITE.format(count=bad, modality=name))
        elif low[number] == high[number] == 0:
            findings.add("empty-modality", files[number], f"{name} is 0 everywhere")
        elif low[number] == high[number]:
            findings.add("constant-modality", files[number], f"{name} is {low[number]:g} over the brain")
        for other in range(number):
            # Equal moments first: comparing all voxels of every pair takes as long as reading them.
            same_moments = (mean[other], deviation[other]) == (mean[number], deviation[number])
            alike = finite[number] and deviation[number] and same_moments
            if alike and np.array_equal(values[:, other], values[:, number]):
                findings.add("same-modality", files[number], f"{name} is the same as {MODALITIES[other]}")


def check_air(case: Case, brain: Brain, grid: Shape, findings: Collector) -> None:
    """Check that there is air around the brain: that the images are skull-stripped."""
    share = len(brain.values) / np.prod(grid)
    if share > MOST_BRAIN:
        file = case.images[0] if len(case.images) == 1 else None  # it is said of all modalities together
        findings.add("no-air", file, f"{share:.0%} of the voxels are not 0")


def check_label_in_brain(path: Path, label: NDArray[np.uint8], brain: Brain, findings: Collector) -> None:
    """Check that what a label marks is brain, but for a small share."""
    marked = label != 0
    outside = np.count_nonzero(marked & ~brain.mask)
    if outside > MOST_OUTSIDE * np.count_nonzero(marked):
        share = outside / np.count_nonzero(marked)
        findings.add("outside-brain", path, f"{share:.0%} of what it marks lie in the air")


def whole_label(label: NDArray[Any], path: Path, data: DataSet, findings: Collector) -> NDArray[np.uint8] | None:
    """Return a label as uint8, or None, with a finding, where it has other values than its layout has.

    Args:
        label: (x, y, z), of whole numbers or of floats that are whole numbers but for rounding.
        path: Its file.
        data: The data set, for the values that a label may have.
        findings: Where a finding goes.
    """
    if label.dtype.kind == "f":
        if bad := np.count_nonzero(~np.isfinite(label)):
            findings.add("not-finite", path, f"NaN or infinity in {bad} of the voxels")
            return None
        rounded = np.rint(label)
        if bad := np.count_nonzero(np.abs(label - rounded) > WHOLE):
            findings.add("label-values", path, f"no whole number in {bad} of the voxels")
            return None
        label = rounded
    low, high = int(label.min()), int(label.max())
    is_byte = low >= 0 and high < 256
    values = np.flatnonzero(np.bincount(label.ravel().astype(np.int64))) if is_byte else np.unique(label)
    unknown = np.setdiff1d(values, data.label_values)
    if unknown.size:
        shown = ", ".join(f"{value:g}" for value in unknown[:5])
        findings.add("label-values", path, f"{shown} beside {list(data.label_values)}")
        return None
    if not high:
        findings.add("empty-label", path, "background alone")
    return label.astype(np.uint8)


def modality_files(case: Case) -> tuple[Path, ...]:
    """Return the file of each modality, in the order of `MODALITIES`."""
    return case.images if len(case.images) > 1 else case.images * len(MODALITIES)
