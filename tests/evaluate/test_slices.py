"""Pictures of cases."""

from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from mis.evaluate.cases import CaseScores, Prediction
from mis.evaluate.scores import brats2023
from mis.evaluate.slices import draw_case, pick_evenly, tumour_centre

PERFECT = brats2023(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), (1, 1, 1))


def score(value, regions=("WT",), name=None):
    return CaseScores(name or str(value), dict.fromkeys(regions, replace(PERFECT, dice=value)))


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [0.1]), (2, [0.1, 0.5]), (3, [0.1, 0.3, 0.5]), (9, [0.1, 0.2, 0.3, 0.4, 0.5])]
)
def test_cases_are_picked_from_the_worst_to_the_best(count, expected):
    scores = [score(value) for value in (0.3, 0.1, 0.5, 0.2, 0.4)]
    assert [picked.mean for picked in pick_evenly(scores, count)] == expected


def test_the_centre_of_a_tumour():
    truth = np.zeros((10, 12, 14, 2), bool)
    truth[4:7, 2:5, 8:11, 0] = True
    assert tumour_centre(truth) == (5, 3, 9)
    assert tumour_centre(np.zeros((10, 12, 14, 2), bool)) == (5, 6, 7)


@pytest.mark.parametrize("regions", [["WT", "TC", "ET"], ["WT"]])
def test_truth_and_prediction_are_outlined(tmp_path, regions):
    image = np.random.default_rng(0).normal(size=(16, 18, 20, 4)).astype(np.float32)
    truth = np.zeros((16, 18, 20, len(regions)), bool)
    truth[4:9, 5:11, 6:12] = True
    drawn = []
    for predicted in (truth, np.zeros_like(truth)):
        case = Prediction(score(0.5, regions, "BRATS_001"), image, truth, predicted)
        draw_case(case, ["FLAIR", "T1w", "T1gd", "T2w"], regions, tmp_path / "case.png")
        drawn.append(matplotlib.image.imread(tmp_path / "case.png"))
    half = drawn[0].shape[1] * 3 // 4
    changed = np.any(drawn[0] != drawn[1], axis=(0, 2))
    assert changed[half:].any()  # the column of the prediction
    assert not changed[:half].any()  # and no other
    assert [file.name for file in tmp_path.iterdir()] == ["case.png"]
