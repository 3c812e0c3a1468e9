"""The better of two models on the test split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mis.data.case import WHOLE_TUMOR
from mis.data.pipeline.dataset import case_batches, told_of_damage
from mis.data.records.index import Records, read_records
from mis.errors import MisError
from mis.evaluate.baseline import choose_threshold, score_threshold
from mis.evaluate.predict import Score, load_model, predict_cases
from mis.evaluate.slices import draw_case, pick_evenly
from mis.files import new_folder
from mis.params.load import Params
from mis.settings import Settings
from mis.track.base import EVALUATE, tracked
from mis.track.mlflow import MlflowTracker
from mis.track.provenance import find_origin


@dataclass(frozen=True)
class Evaluation:
    """What the test split showed.

    Attributes:
        model: The name of the model that was chosen.
        val_dice: The validation Dice that it was chosen by.
        cases: The score of each test case.
        threshold_dice_wt: Dice of the whole tumour of each test case by the best threshold on
            FLAIR, chosen on the training cases: what any network has to beat.
    """

    model: str
    val_dice: float
    cases: Sequence[Score]
    threshold_dice_wt: Sequence[float]

    def rows(self) -> list[dict[str, object]]:
        """Return a line for each case."""
        return [
            {**score.row(), "threshold_dice_wt": round(baseline, 6)}
            for score, baseline in zip(self.cases, self.threshold_dice_wt, strict=True)
        ]

    def summary(self) -> dict[str, float]:
        """Return the means over the cases."""
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
) -> Evaluation:
    """Choose the model with the better validation Dice, score it on the test split, and log a run.

    Args:
        models: The file and the validation Dice of each model, by name.
        params: All parameters.
        settings: The machine's settings.
        pictures: The folder for pictures of some cases; what is there is replaced.

    Raises:
        MisError: There are no records, or the model was trained for other regions.
    """
    records = read_records(settings.records, params.data)
    name = max(models, key=lambda one: models[one][1])
    path, val_dice = models[name]
    model = _load(path, records)
    threshold = params.evaluate.threshold
    test = records.split.test
    with told_of_damage(records), new_folder(pictures) as folder:
        predicted = predict_cases(model, records, test, threshold)
        scores = [one.score for one in tqdm(predicted, total=len(test), desc="evaluate", unit="case")]
        drawn = [score.case for score in pick_evenly(scores, params.evaluate.pictures)]
        for case in predict_cases(model, records, drawn, threshold):
            draw_case(case, records.modalities, records.regions, folder / f"{case.score.case}.png")
        evaluation = Evaluation(name, val_dice, scores, _threshold(records))
    _log(evaluation, params, settings, pictures, records)
    return evaluation


def _load(path: Path, records: Records) -> keras.Model:
    model = load_model(path)
    if model.output_shape[-1] != len(records.regions):
        raise MisError(
            f"{path} must predict the records' regions {', '.join(records.regions)}",
            got=f"{model.output_shape[-1]} channels",
            do="train again",
        )
    return model


def _threshold(records: Records) -> list[float]:
    """Score the best threshold on FLAIR of the training cases on the test cases."""
    flair, tumour = records.modalities.index("FLAIR"), records.regions.index(WHOLE_TUMOR)

    def pairs(cases: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        for image, target, _ in case_batches(records, cases, batch_size=1):
            yield image.numpy()[0, ..., flair], target.numpy()[0, ..., tumour].astype("uint8")

    chosen = choose_threshold(pairs(records.split.train))
    return score_threshold(chosen.value, pairs(records.split.test))


def _log(evaluation: Evaluation, params: Params, settings: Settings, pictures: Path, records: Records) -> None:
    tracker = MlflowTracker(settings)
    tags = {"mis.model": evaluation.model}
    with tracked(tracker.start_run(EVALUATE, f"test-{evaluation.model}", params=params.flatten(), tags=tags)) as run:
        find_origin(settings, params.data, records.data_hash, records.left_out).describe(run)
        run.log_metrics({f"test/{name}": value for name, value in evaluation.summary().items()})
        for picture in sorted(pictures.glob("*.png")):
            run.log_file(picture, "slices")
