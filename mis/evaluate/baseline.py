"""The baseline: a threshold on FLAIR, which any trained model has to beat.

Edema and most of a tumour are bright in FLAIR. Each case's FLAIR is standardised over its brain;
the baseline is the threshold whose mean whole-tumour Dice over the training cases is best.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mis.data.records.preprocess import standardise
from mis.errors import MisError

Volume = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

CANDIDATES = np.round(np.arange(-200, 601) * 0.01, 2)
"""The thresholds that are tried, in standard deviations from the brain's mean: -2 to 6 in steps of 0.01."""


@dataclass(frozen=True)
class Threshold:
    """A threshold on FLAIR.

    Attributes:
        value: The threshold in standard deviations above the mean of FLAIR over the brain.
        dice: Its mean whole-tumour Dice over the cases that it was chosen on, 0 to 1.
    """

    value: float
    dice: float


def standardised_flair(flair: Volume) -> NDArray[np.float64]:
    """Return FLAIR over the brain with mean 0 and standard deviation 1.

    Args:
        flair: (x, y, z), 0 outside the brain.

    Returns:
        (voxel,): the voxels of the brain alone, in the array's order.

    Raises:
        MisError: There is no brain, or FLAIR is the same all over it.
    """
    values = flair[flair != 0].astype(np.float64)
    if not values.size or (values == values[0]).all():
        raise MisError("FLAIR must vary over the brain", got=f"{values.size} voxels that are not 0, all alike")
    return standardise(values[:, np.newaxis])[:, 0]


def whole_tumour_dice(flair: Volume, label: Labels, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Return the Dice of `standardised FLAIR >= threshold` against the whole tumour.

    $$ D(t) = \frac{2 |P_t \cap T|}{|P_t| + |T|} $$

    with $P_t$ the voxels of the brain at or above threshold $t$ and $T$ the voxels whose label is
    not 0; 1 where both are empty.

    Args:
        flair: (x, y, z), 0 outside the brain.
        label: (x, y, z), 0 where there is no tumour.
        thresholds: (threshold,), in standard deviations.

    Returns:
        (threshold,), each 0 to 1.

    Raises:
        MisError: FLAIR and label differ in shape, or FLAIR does not vary.
    """
    if flair.shape != label.shape:
        raise MisError("FLAIR and label must have the same shape", got=f"{flair.shape} and {label.shape}")
    values = standardised_flair(flair)
    tumour = values[label[flair != 0] != 0]
    predicted = _count_at_or_above(values, thresholds)
    total = predicted + np.count_nonzero(label)
    overlap = _count_at_or_above(tumour, thresholds)
    result: NDArray[np.float64] = np.divide(2 * overlap, total, out=np.ones(len(thresholds)), where=total > 0)
    return result


def _count_at_or_above(values: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many of the values are at or above each threshold, (threshold,)."""
    return values.size - np.searchsorted(np.sort(values), thresholds, side="left")


def choose_threshold(cases: Iterable[tuple[Volume, Labels]]) -> Threshold:
    """Return the candidate with the best mean whole-tumour Dice; of equal candidates, the lowest.

    Args:
        cases: FLAIR and label of each training case, both (x, y, z); read one after the other.

    Raises:
        MisError: There is no case, or a case cannot be used.
    """
    curves = [whole_tumour_dice(flair, label, CANDIDATES) for flair, label in cases]
    if not curves:
        raise MisError("the baseline must have at least one training case", got=0)
    mean = np.mean(curves, axis=0)
    best = int(mean.argmax())
    return Threshold(float(CANDIDATES[best]), float(mean[best]))


def score_threshold(value: float, cases: Iterable[tuple[Volume, Labels]]) -> list[float]:
    """Return each case's whole-tumour Dice with a threshold that was chosen on other cases.

    Args:
        value: The threshold in standard deviations above the mean of FLAIR over the brain.
        cases: FLAIR and label of each case, both (x, y, z); read one after the other.

    Raises:
        MisError: A case cannot be used.
    """
    return [float(whole_tumour_dice(flair, label, np.array([value]))[0]) for flair, label in cases]
