"""Scores of a region's prediction against the truth, by two conventions that are never mixed.

- `brats2023`: the published metrics code of BraTS 2023. Lesions of the truth that touch once dilated are one lesion;
  all parts of the prediction that touch a dilated lesion are its prediction. A lesion of the truth of up to
  `smallest_mm3` is left out. A part of the prediction that touches no lesion is a false positive: Dice 0, 374 mm.
- `panoptica`: the package brats-evaluation, by which later challenges are scored. Lesions are the connected parts,
  which are matched one to one so that the sum of their Dice is largest. The package counts distances in voxels, here
  they are millimetres: for voxels of 1 mm, which every case of BraTS has, they are the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isinf, nan

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from mis.evaluate.surface import Mask, Spacing, pooled_hausdorff_mm, robust_hausdorff_mm
from mis.predict.labels import NEIGHBOURS_26

NEIGHBOURS_18 = ndimage.generate_binary_structure(3, 2)

WORST_BRATS_MM, WORST_PANOPTICA_MM = 374.0, 373.0
"""The distance of what is missed or false: the diagonal of 240 x 240 x 155 voxels of 1 mm, rounded up and down."""


@dataclass(frozen=True)
class LesionRules:
    """What BraTS 2023 counts as a lesion, which differs among its tumours.

    Attributes:
        dilations: How often the truth is dilated (18 neighbours) before its lesions are told apart.
        smallest_mm3: Lesions of the truth of up to this volume are left out.
    """

    dilations: int
    smallest_mm3: float


LESION_RULES: Mapping[str, LesionRules] = {
    "glioma": LesionRules(3, 50),
    "meningioma": LesionRules(1, 50),
    "metastasis": LesionRules(1, 2),
}
"""By tumour; those of Africa (SSA) and of children (PED) have the rules of gliomas."""


@dataclass(frozen=True)
class RegionScores:
    """The scores of one region of a case.

    Attributes:
        dice: Of all voxels, 0 to 1.
        hd95_mm: 95th percentile of the distances between the surfaces.
        sensitivity: The part of the truth that was found, 0 to 1.
        specificity: The part of what is not the region that was not taken for it, 0 to 1.
        volume_ml: The volume of the truth.
        volume_error_ml: The volume of the prediction minus that of the truth.
        lesion_dice: The mean Dice over the lesions.
        lesion_hd95_mm: The mean over the lesions.
        lesions_found: Lesions of the truth that have a prediction.
        lesions_missed: Lesions of the truth that have none.
        lesions_false: Lesions of the prediction that are none of the truth.
    """

    dice: float
    hd95_mm: float
    sensitivity: float
    specificity: float
    volume_ml: float
    volume_error_ml: float
    lesion_dice: float
    lesion_hd95_mm: float
    lesions_found: int
    lesions_missed: int
    lesions_false: int


def dice(truth: Mask, predicted: Mask) -> float:
    """Return the Dice coefficient of two masks, not a number where both are empty."""
    size = np.count_nonzero(truth) + np.count_nonzero(predicted)
    return 2 * np.count_nonzero(truth & predicted) / size if size else nan


def brats2023(
    truth: Mask, predicted: Mask, spacing_mm: Spacing, rules: LesionRules = LESION_RULES["glioma"]
) -> RegionScores:
    """Return the scores of a region as BraTS 2023 has them: both empty are Dice 1 and 0 mm, one empty 0 and 374 mm.

    Args:
        truth: (x, y, z).
        predicted: (x, y, z).
        spacing_mm: The edges of a voxel.
        rules: What is a lesion.
    """
    both_empty = not truth.any() and not predicted.any()
    hd95_mm = 0.0 if both_empty else min(robust_hausdorff_mm(truth, predicted, spacing_mm), WORST_BRATS_MM)
    voxel_mm3 = float(np.prod(spacing_mm))
    lesions = _dilated_lesions(truth, rules.dilations)
    parts, count = ndimage.label(predicted, NEIGHBOURS_26)
    touched: set[int] = set()
    dices, distances, found, missed = [], [], 0, 0
    for number, box in enumerate(ndimage.find_objects(lesions), start=1):
        lesion = lesions == number
        own = _parts_that_touch(parts, lesion, box, rules.dilations)
        touched |= own
        if np.count_nonzero(lesion) * voxel_mm3 <= rules.smallest_mm3:
            continue
        found, missed = found + bool(own), missed + int(not own)
        prediction = np.isin(parts, list(own))
        dices.append(dice(lesion, prediction))
        distance = robust_hausdorff_mm(lesion, prediction, spacing_mm)
        distances.append(WORST_BRATS_MM if isinf(distance) else distance)
    false = count - len(touched)
    counted = len(dices) + false
    return RegionScores(
        dice=1.0 if both_empty else dice(truth, predicted),
        hd95_mm=hd95_mm,
        **_detection(truth, predicted, voxel_mm3),
        lesion_dice=sum(dices) / counted if counted else 1.0,
        lesion_hd95_mm=(sum(distances) + false * WORST_BRATS_MM) / counted if counted else 0.0,
        lesions_found=found,
        lesions_missed=missed,
        lesions_false=false,
    )


def _dilated_lesions(truth: Mask, dilations: int) -> NDArray[np.int32]:
    """Return the number of the lesion of each voxel of the truth, from 1: connected once the truth is dilated."""
    lesions, _ = ndimage.label(ndimage.binary_dilation(truth, NEIGHBOURS_18, iterations=dilations), NEIGHBOURS_26)
    result: NDArray[np.int32] = np.where(truth, lesions, 0)
    return result


def _parts_that_touch(parts: NDArray[np.int32], lesion: Mask, box: tuple[slice, ...], dilations: int) -> set[int]:
    """Return the numbers of the prediction's parts that have a voxel in a lesion, which a box holds, once dilated."""
    around = tuple(slice(max(0, part.start - dilations), part.stop + dilations) for part in box)
    dilated = ndimage.binary_dilation(lesion[around], NEIGHBOURS_18, iterations=dilations)
    return set(np.unique(parts[around][dilated]).tolist()) - {0}


def panoptica(truth: Mask, predicted: Mask, spacing_mm: Spacing) -> RegionScores:
    """Return the scores of a region as brats-evaluation has them.

    Both empty is not a number, one empty Dice 0 and 373 mm. `lesion_dice` and `lesion_hd95_mm` are means over the
    lesions that are matched, 0 and 373 mm where none is; what is missed or false shows in the counts.

    Args:
        truth: (x, y, z).
        predicted: (x, y, z).
        spacing_mm: The edges of a voxel.
    """
    one_empty = truth.any() != predicted.any()
    both_empty = not truth.any() and not predicted.any()
    # Numbered as NIfTI orders voxels, x first, as panoptica does: among pairs of the same Dice the first ones count.
    (lesions, lesion_count), (parts, part_count) = (ndimage.label(mask.T, NEIGHBOURS_26) for mask in (truth, predicted))
    lesions, parts = lesions.T, parts.T
    pairs = _matched(lesions, parts, lesion_count, part_count)
    dices = [pair_dice for _, _, pair_dice in pairs]
    distances = [pooled_hausdorff_mm(lesions == lesion, parts == part, spacing_mm) for lesion, part, _ in pairs]
    return RegionScores(
        dice=nan if both_empty else dice(truth, predicted),
        hd95_mm=nan
        if both_empty
        else WORST_PANOPTICA_MM
        if one_empty
        else pooled_hausdorff_mm(truth, predicted, spacing_mm),
        **_detection(truth, predicted, float(np.prod(spacing_mm))),
        lesion_dice=float(np.mean(dices)) if dices else (nan if both_empty else 0.0),
        lesion_hd95_mm=float(np.mean(distances)) if distances else (nan if both_empty else WORST_PANOPTICA_MM),
        lesions_found=len(pairs),
        lesions_missed=lesion_count - len(pairs),
        lesions_false=part_count - len(pairs),
    )


def _matched(
    lesions: NDArray[np.int32], parts: NDArray[np.int32], lesion_count: int, part_count: int
) -> Sequence[tuple[int, int, float]]:
    """Return pairs of a lesion and a part that overlap, and their Dice: each in one pair, with the largest sum."""
    overlap = np.zeros((lesion_count + 1, part_count + 1), np.int64)
    np.add.at(overlap, (lesions.ravel(), parts.ravel()), 1)
    lesion_sizes, part_sizes = overlap.sum(axis=1)[1:], overlap.sum(axis=0)[1:]
    scores = 2 * overlap[1:, 1:] / np.maximum(lesion_sizes[:, None] + part_sizes[None, :], 1)
    # What panoptica minimises, to the last bit: of pairs that are worth the same it then takes the same.
    costs = np.where(scores > 0, 1 - scores, 1 + 1e-6)
    rows, columns = linear_sum_assignment(costs)
    return [
        (int(row) + 1, int(column) + 1, float(scores[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if scores[row, column] > 0
    ]


def _detection(truth: Mask, predicted: Mask, voxel_mm3: float) -> dict[str, float]:
    """Return sensitivity, specificity and volumes: a share of nothing is 1 where nothing was predicted, else 0."""
    right, true_size, size = np.count_nonzero(truth & predicted), np.count_nonzero(truth), np.count_nonzero(predicted)
    outside = truth.size - true_size
    return {
        "sensitivity": right / true_size if true_size else float(size == 0),
        "specificity": (outside - (size - right)) / outside if outside else 0.0,
        "volume_ml": true_size * voxel_mm3 / 1000,
        "volume_error_ml": (size - true_size) * voxel_mm3 / 1000,
    }


CONVENTIONS: Mapping[str, Callable[[Mask, Mask, Spacing], RegionScores]] = {
    "brats2023": brats2023,
    "panoptica": panoptica,
}
"""The conventions by name."""
