"""The stage `evaluate`: the better of two models on the test cases."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mis.data.case import WHOLE_TUMOR
from mis.data.pipeline.dataset import case_batches, damage_as_error
from mis.data.records.index import Records
from mis.data.records.reader import read_records
from mis.errors import MisError
from mis.evaluate.baseline import choose_threshold, score_threshold
from mis.evaluate.predict import CaseScore, predict_cases
from mis.evaluate.slices import draw_case, pick_evenly
from mis.files import new_folder
from mis.params.load import Params
from mis.predict.model import Segmenter, load_segmenter
from mis.settings import Settings
from mis.track.base import EVALUATE, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.names import MODEL_TAG, TEST_PREFIX
from mis.track.provenance import find_origin


@dataclass(frozen=True)
class ModelScores:
    """The scores of a model on the test cases, beside those of the baseline.

    Attributes:
        model: The name of the model, `train` or `tune`.
        val_dice: The mean validation Dice for which it was chosen.
        cases: The scores of each test case.
        threshold_dice_wt: The whole-tumour Dice of the baseline for each test case: the best threshold on FLAIR,
            chosen on the training cases. Any network has to beat it.
    """

    model: str
    val_dice: float
    cases: Sequence[CaseScore]
    threshold_dice_wt: Sequence[float]

    def rows(self) -> list[dict[str, object]]:
        """Return the row of each test case for the table of scores."""
        return [
            {**score.row(), "threshold_dice_wt": round(baseline, 6)}
            for score, baseline in zip(self.cases, self.threshold_dice_wt, strict=True)
        ]

    def summary(self) -> dict[str, float]:
        """Return the means over the test cases, and their number."""
        regions = self.cases[0].dice
        means = {f"dice_{name.lower()}": mean(score.dice[name] for score in self.cases) for name in regions}
        return {
            "dice": mean(score.mean for score in self.cases),
            **means,
            "threshold_dice_wt": mean(self.threshold_dice_wt),
            "cases": len(self.cases),
        }


def evaluate(
    models: Mapping[str, tuple[Path, float]], params: Params, settings: Settings, pictures: Path
) -> ModelScores:
    """Choose the model with the better validation Dice, score it on the test split, and log a run.

    Args:
        models: The file and the validation Dice of each model, by name.
        params: All parameters.
        settings: The machine's settings.
        pictures: The folder for the pictures of some cases; an existing folder is replaced.

    Returns:
        The scores of the chosen model.

    Raises:
        MisError: There are no records, or the model was trained for other regions.
    """
    records = read_records(settings.records, params.data)
    name = max(models, key=lambda candidate: models[candidate][1])
    path, val_dice = models[name]
    segmenter = _load(path, records)
    test = records.split.test
    with damage_as_error(records), new_folder(pictures) as folder:
        predictions = predict_cases(segmenter, records, test, params.predict)
        scores = [prediction.score for prediction in tqdm(predictions, total=len(test), desc="evaluate", unit="case")]
        drawn_cases = [score.case for score in pick_evenly(scores, params.evaluate.pictures)]
        for prediction in predict_cases(segmenter, records, drawn_cases, params.predict):
            draw_case(prediction, records.modalities, records.regions, folder / f"{prediction.score.case}.png")
        model_scores = ModelScores(name, val_dice, scores, _baseline_dice(records))
    _log(model_scores, params, settings, pictures, records)
    return model_scores


def _load(path: Path, records: Records) -> Segmenter:
    """Load a model that must predict the regions of the records."""
    segmenter = load_segmenter([path])
    if segmenter.card.regions != records.regions:
        raise MisError(
            f"{path} must predict the records' regions {', '.join(records.regions)}",
            got=", ".join(segmenter.card.regions),
            do="train again",
        )
    return segmenter


def _baseline_dice(records: Records) -> list[float]:
    """Return the whole-tumour Dice of each test case by the threshold on FLAIR that is best on the training cases."""
    flair, tumour = records.modalities.index("FLAIR"), records.regions.index(WHOLE_TUMOR)

    def flair_and_tumour(cases: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        for image, target, _ in case_batches(records, cases, batch_size=1):
            yield image.numpy()[0, ..., flair].astype("float32"), target.numpy()[0, ..., tumour]

    chosen = choose_threshold(flair_and_tumour(records.split.train))
    return score_threshold(chosen.value, flair_and_tumour(records.split.test))


def _log(scores: ModelScores, params: Params, settings: Settings, pictures: Path, records: Records) -> None:
    """Log a run with the scores and the pictures."""
    tracker = MlflowTracker(settings)
    tags = {MODEL_TAG: scores.model}
    with tracked(tracker.start_run(EVALUATE, f"test-{scores.model}", params=params.flatten(), tags=tags)) as run:
        find_origin(settings, params.data, records.data_hash, records.left_out).record(run)
        run.log_metrics({f"{TEST_PREFIX}{name}": value for name, value in scores.summary().items()})
        for picture in sorted(pictures.glob("*.png")):
            run.log_file(picture, "slices")
