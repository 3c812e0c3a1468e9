"""Pictures of cases."""

from dataclasses import replace

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

from mis.data.pictures.planes import lesion_centre
from mis.evaluate.cases import CaseScores, Prediction
from mis.evaluate.scores import brats2023
from mis.evaluate.sheet import draw_sheet, worst_first
from mis.evaluate.volumes import FALSE, MISSED, OTHER, volumes_of, write_volumes

PERFECT = brats2023(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), (1, 1, 1))


def score(value, regions=("WT",), name=None):
    return CaseScores(name or str(value), dict.fromkeys(regions, replace(PERFECT, dice=value)))


def test_the_worst_cases_come_first():
    scores = [score(value) for value in (0.3, float("nan"), 0.1, 0.5)]
    assert [one.mean for one in worst_first(scores)][:3] == [0.1, 0.3, 0.5]
    assert [one.case for one in worst_first([score(0.5, name="b"), score(0.5, name="a")])] == ["a", "b"]


def test_the_planes_go_through_the_largest_lesion():
    truth = np.zeros((20, 22, 24, 2), bool)
    truth[1:3, 1:3, 1:3, 0] = True
    truth[10:15, 12:17, 8:13, 0] = True
    truth[12, 14, 13:20, 1] = True  # a part of it in one plane alone
    predicted = np.zeros_like(truth)
    predicted[5:8, 5:8, 5:8] = True
    x, y, z = lesion_centre(truth, predicted)
    assert (x, y) == (12, 14)
    assert 8 <= z < 13
    assert all(5 <= index < 8 for index in lesion_centre(np.zeros_like(truth), predicted))
    assert lesion_centre(np.zeros_like(truth), np.zeros_like(truth)) == (10, 11, 12)


@pytest.mark.parametrize("regions", [["WT", "TC", "ET"], ["WT"]])
def test_truth_and_prediction_are_outlined(tmp_path, regions):
    image = np.random.default_rng(0).normal(size=(16, 18, 20, 4)).astype(np.float32)
    truth = np.zeros((16, 18, 20, len(regions)), bool)
    truth[4:9, 5:11, 6:12] = True
    drawn = []
    for predicted in (truth, np.zeros_like(truth)):
        case = Prediction(score(0.5, regions, "BRATS_001"), image, truth, predicted, np.eye(4))
        draw_sheet(case, ["FLAIR", "T1w", "T1gd", "T2w"], regions, tmp_path / "case.png")
        drawn.append(matplotlib.image.imread(tmp_path / "case.png"))
    half = drawn[0].shape[1] * 3 // 4
    changed = np.any(drawn[0] != drawn[1], axis=(0, 2))
    assert changed[half:].any()  # the column of the prediction
    assert not changed[:half].any()  # and no other
    assert [file.name for file in tmp_path.iterdir()] == ["case.png"]


def test_the_volumes_of_a_case(tmp_path):
    """Their values are what a viewer needs, and they lie where the case lies."""
    image = np.zeros((8, 9, 10, 4), np.float32)
    image[1:7, 1:8, 1:9] = np.random.default_rng(0).normal(size=(6, 7, 8, 4))
    truth = np.zeros((8, 9, 10, 3), bool)
    truth[2:5, 2:5, 2:5, 0] = truth[3, 3, 2:5, 1] = truth[3, 3, 3, 2] = True
    predicted = truth.copy()
    predicted[2, 2, 2] = False
    predicted[5, 5, 5, 0] = True
    predicted[4, 4, 4, 1] = True
    affine = np.array([[-1.0, 0, 0, 9], [0, -2, 0, 8], [0, 0, 3, 7], [0, 0, 0, 1]])
    case = Prediction(score(0.5, ["WT", "TC", "ET"], "BRATS_001"), image, truth, predicted, affine)
    assert case.spacing_mm == (1, 2, 3)
    volumes = volumes_of(case, ["FLAIR", "T1w", "T1gd", "T2w"])
    assert volumes["truth"][3, 3, 3] == 3
    assert volumes["truth"][3, 3, 2] == 2
    assert volumes["truth"][2, 2, 2] == 1
    differ = volumes["difference"]
    assert (differ[2, 2, 2], differ[5, 5, 5], differ[4, 4, 4]) == (MISSED, FALSE, OTHER)
    assert np.count_nonzero(differ) == 3
    assert volumes["FLAIR"].min() == 0
    assert volumes["FLAIR"].max() == 255
    assert not volumes["T1gd"][0].any()
    write_volumes(case, ["FLAIR", "T1w", "T1gd", "T2w"], tmp_path / "BRATS_001")
    for name, volume in volumes.items():
        written = nib.load(tmp_path / "BRATS_001" / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), volume)
        np.testing.assert_array_equal(written.affine, affine)
        assert written.get_data_dtype() == np.uint8
