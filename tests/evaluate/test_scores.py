from math import isnan

import numpy as np
import pytest

from mis.evaluate.scores import LESION_RULES, LesionRules, brats2023, panoptica

ONE = (1.0, 1.0, 1.0)
SHAPE = (40, 20, 20)


def boxes(*corners, shape=SHAPE):
    """Return a mask with boxes, each (first corner, size)."""
    mask = np.zeros(shape, bool)
    for first, size in corners:
        mask[tuple(slice(start, start + edge) for start, edge in zip(first, size, strict=True))] = True
    return mask


BIG = ((2, 2, 2), (5, 5, 5))  # 125 voxels
FAR = ((30, 2, 2), (5, 5, 5))
SMALL = ((20, 14, 14), (2, 2, 2))
EMPTY = boxes()


@pytest.mark.parametrize("convention", [brats2023, panoptica])
def test_a_perfect_prediction(convention):
    scores = convention(boxes(BIG, FAR), boxes(BIG, FAR), ONE)
    assert (scores.dice, scores.hd95_mm, scores.sensitivity, scores.specificity) == (1, 0, 1, 1)
    assert (scores.lesion_dice, scores.lesion_hd95_mm) == (1, 0)
    assert (scores.lesions_found, scores.lesions_missed, scores.lesions_false) == (2, 0, 0)
    assert (scores.volume_ml, scores.volume_error_ml) == (0.25, 0)


def test_empty_regions_in_brats2023():
    both = brats2023(EMPTY, EMPTY, ONE)
    assert (both.dice, both.hd95_mm, both.lesion_dice, both.lesion_hd95_mm) == (1, 0, 1, 0)
    assert (both.sensitivity, both.specificity) == (1, 1)
    missed = brats2023(boxes(BIG), EMPTY, ONE)
    assert (missed.dice, missed.hd95_mm, missed.lesion_dice, missed.lesion_hd95_mm) == (0, 374, 0, 374)
    assert (missed.lesions_missed, missed.sensitivity) == (1, 0)
    false = brats2023(EMPTY, boxes(BIG), ONE)
    assert (false.dice, false.hd95_mm, false.lesion_dice, false.lesion_hd95_mm) == (0, 374, 0, 374)
    assert (false.lesions_false, false.sensitivity) == (1, 0)


def test_empty_regions_in_panoptica():
    both = panoptica(EMPTY, EMPTY, ONE)
    assert all(isnan(value) for value in (both.dice, both.hd95_mm, both.lesion_dice, both.lesion_hd95_mm))
    for scores in (panoptica(boxes(BIG), EMPTY, ONE), panoptica(EMPTY, boxes(BIG), ONE)):
        assert (scores.dice, scores.hd95_mm) == (0, 373)


def test_a_false_lesion_counts_with_dice_0_and_374_mm():
    scores = brats2023(boxes(BIG), boxes(BIG, FAR), ONE)
    assert (scores.lesion_dice, scores.lesion_hd95_mm) == (0.5, 187)
    assert (scores.lesions_found, scores.lesions_false) == (1, 1)
    assert scores.dice == pytest.approx(2 / 3)


def test_lesions_that_touch_once_dilated_are_one():
    near = ((11, 2, 2), (5, 5, 5))  # 4 voxels between them: dilated 3 times they touch, once they do not
    truth = boxes(BIG, near)
    assert brats2023(truth, truth, ONE).lesions_found == 1
    assert brats2023(truth, truth, ONE, LESION_RULES["meningioma"]).lesions_found == 2
    assert panoptica(truth, truth, ONE).lesions_found == 2


def test_small_lesions_of_the_truth_are_left_out_and_their_prediction_is_no_false_one():
    scores = brats2023(boxes(BIG, SMALL), boxes(BIG, SMALL), ONE)
    assert (scores.lesions_found, scores.lesions_missed, scores.lesions_false) == (1, 0, 0)
    assert brats2023(boxes(BIG, SMALL), boxes(BIG), ONE).lesion_dice == 1
    assert brats2023(boxes(BIG, SMALL), boxes(BIG), ONE, LesionRules(1, 2)).lesion_dice == 0.5
    # By volume, not by voxels: 8 voxels of 8 mm3 are 64 mm3.
    assert brats2023(boxes(BIG, SMALL), boxes(BIG), (2, 2, 2)).lesion_dice == 0.5


def test_all_parts_that_touch_a_lesion_are_its_prediction():
    halves = boxes(((2, 2, 2), (2, 5, 5)), ((5, 2, 2), (2, 5, 5)))  # a plane is missing between them
    scores = brats2023(boxes(BIG), halves, ONE)
    assert (scores.lesions_found, scores.lesions_false) == (1, 0)
    assert scores.lesion_dice == pytest.approx(200 / 225)
    matched = panoptica(boxes(BIG), halves, ONE)
    assert (matched.lesions_found, matched.lesions_false) == (1, 1)
    assert matched.lesion_dice == pytest.approx(100 / 175)


def test_pairs_have_the_largest_sum_of_dice():
    # A prediction over both lesions matches the one of which it has more; the other is missed.
    long = ((2, 2, 2), (33, 5, 5))
    scores = panoptica(boxes(BIG, FAR), boxes(long), ONE)
    assert (scores.lesions_found, scores.lesions_missed, scores.lesions_false) == (1, 1, 0)
    assert scores.lesion_dice == pytest.approx(2 * 125 / (125 + 33 * 25))


def test_volumes_are_millilitres_of_the_file_s_voxels():
    scores = brats2023(boxes(BIG), boxes(((2, 2, 2), (5, 5, 4))), (2, 2, 2))
    assert (scores.volume_ml, scores.volume_error_ml) == (1.0, pytest.approx(-0.2))
    assert scores.sensitivity == pytest.approx(0.8)
