"""Scores of a model whose predictions are known."""

from dataclasses import replace

import keras
import nibabel as nib
import numpy as np
import pytest

from mis.data.records.preprocess import region_bits, region_channels
from mis.errors import MisError
from mis.evaluate.cases import CaseScores, predict_cases, truth_of_files
from mis.evaluate.scores import brats2023
from mis.model.card import ModelCard
from mis.predict.model import Segmenter
from mis.predict.session import predict_cases as write_label_maps


@pytest.fixture(scope="module")
def bright(records, tiny_params):
    """A model whose probability is 1 where FLAIR is above the brain's mean, in each region."""
    image = keras.Input((None, None, None, 4))
    flair = keras.layers.Lambda(lambda x: keras.ops.cast(x[..., :1] > 0, "float32"))(image)
    model = keras.Model(image, keras.layers.Concatenate()([flair] * 3))
    return Segmenter((model,), ModelCard.of(records, tiny_params.model, tiny_params.train), "bright")


@pytest.fixture(scope="module")
def predicted(bright, records, tiny):
    """Return the predictions of cases: a function of their names and the parameters."""

    def predict(cases, params, convention="brats2023"):
        return list(predict_cases(bright, records, cases, params, data=tiny, convention=convention))

    return predict


@pytest.mark.parametrize("window", [None, (8, 8, 8)])
def test_dice_is_that_of_the_arrays(predicted, records, params, window):
    cases = predicted(records.split.train, params.predict.model_copy(update={"window": window}))
    assert [case.scores.case for case in cases] == list(records.split.train)
    for case in cases:
        assert np.array_equal(case.predicted[..., 0], case.image[..., 0] > 0)
        for index, region in enumerate(records.regions):
            truth, mask = case.truth[..., index], case.predicted[..., index]
            expected = 2 * (truth & mask).sum() / (truth.sum() + mask.sum())
            assert case.scores.dice[region] == pytest.approx(expected, rel=1e-6)


def test_scores_are_those_of_the_masks_in_the_file_s_grid(predicted, records, params, tiny):
    (case,) = predicted(records.split.test, params.predict)
    geometry = records.cases[case.scores.case].geometry
    truth_of = truth_of_files(tiny, records.regions)
    truth = truth_of(case.scores.case)
    assert truth.shape == (*geometry.shape, 3)
    for index, region in enumerate(records.regions):
        # The record has the same truth.
        back = geometry.to_file(case.truth[..., index].astype(np.uint8)) > 0
        np.testing.assert_array_equal(truth[..., index], back)
        mask = geometry.to_file(case.predicted[..., index].astype(np.uint8)) > 0
        assert case.scores.regions[region] == brats2023(back, mask, (1.0, 1.0, 1.0))


def test_what_is_scored_is_the_label_map_that_is_written(bright, records, params, tiny, tmp_path):
    (prediction,) = predict_cases(
        bright, records, records.split.test, params.predict, data=tiny, convention="brats2023"
    )
    case = next(case for case in tiny.cases if case.id == prediction.scores.case)
    written = write_label_maps(
        bright, replace(tiny, cases=(), unlabelled=(replace(case, label=None),)), tmp_path, params.predict
    )
    assert written.predicted == [case.id]
    labels = np.asarray(nib.load(tmp_path / f"{case.id}.nii.gz").dataobj)
    regions = region_channels(region_bits(labels, tiny.regions), range(3)).astype(bool)
    truth = truth_of_files(tiny, records.regions)(case.id)
    for index, region in enumerate(records.regions):
        assert prediction.scores.regions[region] == brats2023(truth[..., index], regions[..., index], (1.0, 1.0, 1.0))


def test_a_case_without_a_label_is_told(records, tiny):
    with pytest.raises(MisError, match="must have the label of case BRATS_999"):
        truth_of_files(tiny, records.regions)("BRATS_999")


def test_lesions_that_are_too_small_are_not_predicted(predicted, records, params):
    (case,) = predicted(records.split.test, params.predict.model_copy(update={"min_voxels": 16**3}))
    assert not case.predicted.any()
    assert case.scores.dice["WT"] == 0


def test_a_row_has_the_mean_of_the_regions_and_every_score():
    empty, full = np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)
    perfect, missed = brats2023(full, full, (1, 1, 1)), brats2023(full, empty, (1, 1, 1))
    row = CaseScores("BRATS_001", {"WT": perfect, "TC": missed, "ET": missed}).row()
    assert list(row)[:5] == ["case", "dice", "dice_wt", "dice_tc", "dice_et"]
    assert (row["case"], row["dice"], row["dice_wt"], row["dice_tc"]) == ("BRATS_001", 0.333333, 1, 0)
    assert (row["hd95_mm_wt"], row["hd95_mm_et"], row["lesions_missed_et"]) == (0, 374, 1)
