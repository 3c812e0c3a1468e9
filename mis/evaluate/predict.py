"""Predictions of a trained model, and their Dice scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mis.data.pipeline.dataset import case_batches
from mis.data.records.index import Records
from mis.model.metrics import hard_dice
from mis.params.predict import PredictParams
from mis.predict.labels import regions_from_probabilities
from mis.predict.model import Segmenter


@dataclass(frozen=True)
class CaseScore:
    """The Dice of the prediction of a case.

    Attributes:
        case: The name of the case.
        dice: The Dice of each region, 0 to 1, by the region's name.
    """

    case: str
    dice: dict[str, float]

    @property
    def mean(self) -> float:
        """The mean Dice over the regions."""
        return float(np.mean(list(self.dice.values())))

    def row(self) -> dict[str, object]:
        """Return the case's row of a table: its name, the mean Dice and that of each region."""
        regions = {f"dice_{region.lower()}": round(value, 6) for region, value in self.dice.items()}
        return {"case": self.case, "dice": round(self.mean, 6), **regions}


@dataclass(frozen=True)
class Prediction:
    """A case with its prediction. It takes 0.2 GB at 240 x 240 x 155: few can be in memory at the same time.

    Attributes:
        score: The Dice of the prediction.
        image: float32 (x, y, z, modality), standardised over the brain.
        truth: bool (x, y, z, region): the segmentation of the data set.
        predicted: bool (x, y, z, region): the segmentation of the model.
    """

    score: CaseScore
    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]


def predict_cases(
    segmenter: Segmenter, records: Records, cases: Sequence[str], params: PredictParams
) -> Iterator[Prediction]:
    """Predict the cases one after the other, as `python -m mis.predict` does, and score each prediction.

    Args:
        segmenter: The models.
        records: The records that the cases are read from.
        cases: The names of the cases.
        params: Windows, threshold, and the smallest lesion.
    """
    for case, (images, truths, _) in zip(cases, case_batches(records, cases, batch_size=1), strict=True):
        image, truth = images.numpy()[0].astype(np.float32), truths.numpy()[0] > 0
        probability = segmenter.probabilities(image, params)
        predicted = regions_from_probabilities(probability, params.threshold, params.min_voxels)
        dice = np.asarray(hard_dice(truth[np.newaxis], predicted[np.newaxis].astype(np.float32), 0.5))[0]
        score = CaseScore(case, dict(zip(records.regions, dice.tolist(), strict=True)))
        yield Prediction(score, image, truth, predicted)
