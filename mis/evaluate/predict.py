"""What a trained model is worth on the cases of the test split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from mis.data.pipeline.dataset import case_batches
from mis.data.records.index import Records
from mis.model.group_norm import accelerate
from mis.model.metrics import hard_dice


@dataclass(frozen=True)
class Score:
    """How well one case was predicted.

    Attributes:
        case: Its name.
        dice: Dice of each region.
    """

    case: str
    dice: dict[str, float]

    @property
    def mean(self) -> float:
        """The mean Dice over the regions."""
        return float(np.mean(list(self.dice.values())))

    def row(self) -> dict[str, object]:
        """Return the case's line of a table: its name, the mean Dice and that of each region."""
        regions = {f"dice_{region.lower()}": round(value, 6) for region, value in self.dice.items()}
        return {"case": self.case, "dice": round(self.mean, 6), **regions}


@dataclass(frozen=True)
class Prediction:
    """One case with its prediction; some 0.2 GB at full size, so keep few.

    Attributes:
        score: How well it was predicted.
        image: float32 (x, y, z, modality), standardised.
        truth: bool (x, y, z, region).
        predicted: bool (x, y, z, region).
    """

    score: Score
    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]


def predict_cases(model: keras.Model, records: Records, cases: Sequence[str], threshold: float) -> Iterator[Prediction]:
    """Predict cases one by one and compare each with the truth.

    Args:
        model: From (batch, x, y, z, modality) to probabilities (batch, x, y, z, region).
        records: Where the cases are.
        cases: Their names.
        threshold: A voxel belongs to a region from this probability on.
    """
    for case, (image, truth, _) in zip(cases, case_batches(records, cases, batch_size=1), strict=True):
        probability = model.predict_on_batch(image)
        dice = np.asarray(hard_dice(truth, keras.ops.convert_to_tensor(probability), threshold))[0]
        yield Prediction(
            score=Score(case, dict(zip(records.regions, dice.tolist(), strict=True))),
            image=image.numpy()[0],
            truth=truth.numpy()[0] > 0,
            predicted=probability[0] >= threshold,
        )


def load_model(path: Path) -> keras.Model:
    """Load a model for prediction alone: plain Keras layers, no class of this project."""
    return accelerate(keras.saving.load_model(path, compile=False))
