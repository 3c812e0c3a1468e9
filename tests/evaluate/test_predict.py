"""Scores of a model whose predictions are known."""

import keras
import numpy as np
import pytest

from mis.evaluate.predict import CaseScore, predict_cases
from mis.model.card import ModelCard
from mis.predict.model import Segmenter


@pytest.fixture(scope="module")
def bright(records, tiny_params):
    """A model whose probability is 1 where FLAIR is above the brain's mean, in each region."""
    image = keras.Input((None, None, None, 4))
    flair = keras.layers.Lambda(lambda x: keras.ops.cast(x[..., :1] > 0, "float32"))(image)
    model = keras.Model(image, keras.layers.Concatenate()([flair] * 3))
    return Segmenter((model,), ModelCard.of(records, tiny_params.model, tiny_params.train), "bright")


@pytest.mark.parametrize("window", [None, (8, 8, 8)])
def test_dice_is_that_of_the_arrays(bright, records, params, window):
    wanted = params.predict.model_copy(update={"window": window})
    cases = list(predict_cases(bright, records, records.split.train, wanted))
    assert [case.score.case for case in cases] == list(records.split.train)
    for case in cases:
        assert np.array_equal(case.predicted[..., 0], case.image[..., 0] > 0)
        for index, region in enumerate(records.regions):
            truth, predicted = case.truth[..., index], case.predicted[..., index]
            expected = 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())
            assert case.score.dice[region] == pytest.approx(expected, rel=1e-6)


def test_lesions_that_are_too_small_are_not_predicted(bright, records, params):
    wanted = params.predict.model_copy(update={"min_voxels": 16**3})
    (case,) = predict_cases(bright, records, records.split.test, wanted)
    assert not case.predicted.any()
    assert case.score.dice["WT"] == 0


def test_a_row_has_the_mean_of_the_regions():
    row = CaseScore("BRATS_001", {"WT": 0.9, "TC": 0.6, "ET": 0.3}).row()
    assert row == {"case": "BRATS_001", "dice": 0.6, "dice_wt": 0.9, "dice_tc": 0.6, "dice_et": 0.3}
