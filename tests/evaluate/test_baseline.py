import numpy as np
import pytest

from mis.errors import MisError
from mis.evaluate.baseline import CANDIDATES, choose_threshold, score_threshold, standardised_flair, whole_tumour_dice


def line(*values):
    """A volume of one voxel in y and z."""
    return np.array(values, np.float32).reshape(-1, 1, 1)


# Over the brain: mean 3, standard deviation sqrt(2); standardised -1.41, -0.71, 0, 0.71, 1.41.
FLAIR = line(0, 1, 2, 3, 4, 5, 0)
LABEL = line(0, 0, 0, 0, 1, 3, 0).astype(np.uint8)


def test_standardised_by_hand_over_the_brain_alone():
    assert standardised_flair(FLAIR) == pytest.approx(np.array([-2, -1, 0, 1, 2]) / np.sqrt(2))


def test_standardising_ignores_the_scale_and_the_offset_of_a_scanner():
    assert standardised_flair(np.where(FLAIR > 0, 70 * FLAIR + 400, 0)) == pytest.approx(standardised_flair(FLAIR))


@pytest.mark.parametrize(
    ("threshold", "dice"),
    [
        (-5.0, 2 * 2 / (5 + 2)),  # all of the brain
        (-0.1, 2 * 2 / (3 + 2)),
        (0.5, 1.0),
        (1.0, 2 * 1 / (1 + 2)),
        (9.0, 0.0),  # nothing
    ],
)
def test_dice_by_hand(threshold, dice):
    assert whole_tumour_dice(FLAIR, LABEL, np.array([threshold])) == pytest.approx([dice])


def test_a_voxel_at_the_threshold_belongs_to_the_tumour():
    flair = line(1, 3)  # standardised -1 and 1, exactly
    assert whole_tumour_dice(flair, line(0, 1).astype(np.uint8), np.array([1.0])) == pytest.approx([1.0])


def test_nothing_found_where_nothing_is_counts_as_right():
    assert whole_tumour_dice(FLAIR, np.zeros_like(LABEL), np.array([9.0, 0.0])) == pytest.approx([1.0, 0.0])


def test_a_tumour_outside_the_brain_is_missed():
    label = line(1, 0, 0, 0, 1, 1, 0).astype(np.uint8)
    assert whole_tumour_dice(FLAIR, label, np.array([0.5])) == pytest.approx([2 * 2 / (2 + 3)])


def test_the_threshold_chosen_is_the_lowest_of_the_best():
    chosen = choose_threshold([(FLAIR, LABEL)])
    # Between 0 (exclusive) and 0.707 the two brightest voxels are found, and they are the tumour.
    assert chosen.value == pytest.approx(0.01)
    assert chosen.dice == 1.0


def test_the_threshold_serves_all_cases_together():
    # The second case's tumour is the brightest voxel alone: at 0 < t <= 0.71 the Dice are 1 and 2/3,
    # at 0.71 < t <= 1.41 they are 2/3 and 1; no threshold has a better mean.
    other = line(0, 0, 0, 0, 0, 2, 0).astype(np.uint8)
    chosen = choose_threshold([(FLAIR, LABEL), (FLAIR, other)])
    assert chosen.dice == pytest.approx(5 / 6)
    assert score_threshold(chosen.value, [(FLAIR, LABEL), (FLAIR, other)]) == pytest.approx([1, 2 / 3])


def test_no_candidate_is_better_than_the_one_chosen():
    rng = np.random.default_rng(0)
    cases = [(rng.uniform(1, 9, (6, 5, 4)), rng.integers(0, 2, (6, 5, 4))) for _ in range(3)]
    chosen = choose_threshold(cases)
    means = [np.mean(score_threshold(value, cases)) for value in CANDIDATES]
    assert chosen.dice == pytest.approx(max(means))
    assert np.mean(score_threshold(chosen.value, cases)) == pytest.approx(chosen.dice)


def test_cases_are_read_once_so_that_a_generator_serves():
    assert choose_threshold(case for case in [(FLAIR, LABEL)]) == choose_threshold([(FLAIR, LABEL)])


@pytest.mark.parametrize("flair", [np.zeros((2, 2, 2)), np.full((2, 2, 2), 5.0)])
def test_flair_that_does_not_vary_is_refused(flair):
    with pytest.raises(MisError, match="FLAIR must vary over the brain"):
        standardised_flair(flair)


def test_no_case_and_unequal_shapes_are_refused():
    with pytest.raises(MisError, match="at least one training case, got 0"):
        choose_threshold([])
    with pytest.raises(MisError, match="must have the same shape"):
        whole_tumour_dice(FLAIR, LABEL[:3], np.array([0.0]))
