"""The stage `evaluate`: the better of two models on the test cases; and the same of any model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mis.data.case import WHOLE_TUMOR, DataSet
from mis.data.layouts.recognise import read_data
from mis.data.pipeline.dataset import case_batches, damage_as_error
from mis.data.records.index import Records
from mis.data.records.reader import read_records
from mis.errors import MisError
from mis.evaluate.baseline import choose_threshold, score_threshold
from mis.evaluate.cases import CaseScores, Prediction, predict_cases
from mis.evaluate.champion import register
from mis.evaluate.folds import TABLE, score_folds
from mis.evaluate.sheet import draw_sheet, worst_first
from mis.evaluate.statistics import bootstrap_mean
from mis.evaluate.volumes import write_volumes
from mis.files import new_folder, write_csv, write_json
from mis.model.card import validation_cases
from mis.params.load import Params
from mis.predict.model import Segmenter, load_segmenter
from mis.settings import Settings
from mis.track.base import EVALUATE, tracked
from mis.track.mlflow import MlflowRun, MlflowTracker
from mis.track.names import MODEL_TAG, REGISTERED_NAME, TEST_PREFIX, VERSION_TAG
from mis.track.provenance import find_origin

CASES, SCORES = "cases.csv", "scores"
"""The table of a run with the scores of each case, and the folder among its artifacts that has it."""

SHEETS = "sheets"
"""The folder of the pictures of the cases, among the results and the artifacts of a run."""

FOLDS = "train"
"""The name of the model that is an ensemble where `train.folds` is set."""


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
    cases: Sequence[CaseScores]
    threshold_dice_wt: Sequence[float]

    def rows(self) -> list[dict[str, object]]:
        """Return the row of each test case for the table of scores."""
        return [
            {**score.row(), "threshold_dice_wt": round(baseline, 6)}
            for score, baseline in zip(self.cases, self.threshold_dice_wt, strict=True)
        ]

    def summary(self) -> dict[str, float]:
        """Return the means over the test cases, 95 % confidence intervals of the Dice, and the number of cases.

        A score that a case does not have is left out of its mean; a score that no case has is left out.
        """
        by_case = [score.values() for score in self.cases]
        intervals = {name: bootstrap_mean([values[name] for values in by_case]) for name in by_case[0]}
        return {
            **{name: interval.mean for name, interval in intervals.items() if not isnan(interval.mean)},
            **{
                f"{name}_{end}": value
                for name, interval in intervals.items()
                if name.startswith("dice")
                for end, value in (("low", interval.low), ("high", interval.high))
                if not isnan(value)
            },
            "threshold_dice_wt": mean(self.threshold_dice_wt),
            "cases": len(self.cases),
        }


def evaluate(
    models: Mapping[str, tuple[Path, float]], params: Params, settings: Settings, results: Path
) -> ModelScores:
    """Choose the model with the better validation Dice, score it on the test split, log a run, and register the model.

    Args:
        models: The file and the validation Dice of each model, by name.
        params: All parameters.
        settings: The machine's settings.
        results: The folder that gets `sheets/`, a picture of each case, `volumes/`, some cases for a viewer,
            `cases.csv`, `folds.csv` and `metrics.json`, all of them before anything is asked of MLflow.

    Returns:
        The scores of the chosen model.

    Raises:
        MisError: There are no records, or the model was trained for other regions.
    """
    records = read_records(settings.records, params.data)
    name = max(models, key=lambda candidate: models[candidate][1])
    path, val_dice = models[name]
    tqdm.write(f"evaluated is the model of {name}, whose validation Dice is {val_dice:.4f}")
    segmenter = _load([path], records)
    data = read_data(settings.workspace / params.data.root, params.data.layout)
    scores = _score(segmenter, records, data, params, results)
    model_scores = ModelScores(name, val_dice, scores, _baseline_dice(records))
    write_csv(results / CASES, model_scores.rows())
    write_csv(results / TABLE, [], header=("fold", "case"))  # without folds a header alone
    chosen = {"model": name, "val_dice": val_dice, **model_scores.summary()}
    write_json(results / "metrics.json", chosen)
    folds = None
    if params.train.folds is not None:
        folds = score_folds(models[FOLDS][0], records, data, params)
        write_csv(results / TABLE, folds.rows())
        write_json(results / "metrics.json", {**chosen, **folds.metrics()})
    tracker = open_store(settings)
    if tracker is None:
        tqdm.write(f"the scores are in {results} alone, and no model is registered")
        return model_scores
    with _run_of(model_scores, tracker, params, settings, records=records, results=results) as run:
        if folds is not None:
            run.log_metrics(folds.metrics())
            run.log_file(results / TABLE, SCORES)
        card = replace(segmenter.card, validated_on=validation_cases(params.train))
        registration = register(tracker, run.id, path, card, {"val_dice": val_dice, **model_scores.summary()})
        run.set_tags({VERSION_TAG: registration.version})
        verb = "is" if registration.is_champion else "is not"
        tqdm.write(f"the scores: run {run.id} in {tracker.location()}")
        tqdm.write(
            f"registered as {REGISTERED_NAME} version {registration.version}, which {verb} the champion: "
            f"{registration.reason}"
        )
    return model_scores


def open_store(settings: Settings) -> MlflowTracker | None:
    """Open MLflow's store; None where it does not answer and the command may do without, which is said.

    Raises:
        MisError: It does not answer, or cannot be used, and the command may not do without.
    """
    try:
        return MlflowTracker(settings)
    except MisError as error:
        if not settings.offline:
            raise
        tqdm.write(f"nothing is recorded in MLflow, which MIS_OFFLINE=1 does without: {error}")
        return None


def score(
    models: Sequence[Path], name: str, params: Params, settings: Settings, tracker: MlflowTracker | None
) -> tuple[ModelScores, str | None]:
    """Score a model, or several together, on the test split, and log a run; nothing is registered.

    Args:
        models: The files of the models.
        name: What the run says of them.
        params: All parameters.
        settings: The machine's settings.
        tracker: Where the run is; None where none is logged.

    Returns:
        The scores, and the run's id; None where none was logged.

    Raises:
        MisError: There are no records, or a model was trained for other regions.
    """
    records = read_records(settings.records, params.data)
    segmenter = _load(models, records)
    data = read_data(settings.workspace / params.data.root, params.data.layout)
    with TemporaryDirectory() as folder:
        results = Path(folder)
        scores = _score(segmenter, records, data, params, results)
        model_scores = ModelScores(name, nan, scores, _baseline_dice(records))
        if tracker is None:
            return model_scores, None
        write_csv(results / CASES, model_scores.rows())
        with _run_of(model_scores, tracker, params, settings, records=records, results=results) as run:
            return model_scores, run.id


def _score(
    segmenter: Segmenter, records: Records, data: DataSet, params: Params, results: Path
) -> Sequence[CaseScores]:
    """Score the test cases, draw the sheet of each, and write the volumes of the worst for a viewer."""

    def predictions(cases: Sequence[str]) -> Iterator[Prediction]:
        convention = params.evaluate.convention
        return predict_cases(segmenter, records, cases, params.predict, data=data, convention=convention)

    test, scores = records.split.test, []
    sheets, volumes = new_folder(results / SHEETS), new_folder(results / "volumes")
    with damage_as_error(records), sheets as sheets_folder, volumes as volumes_folder:
        for prediction in tqdm(predictions(test), total=len(test), desc="evaluate", unit="case"):
            scores.append(prediction.scores)
            sheet = sheets_folder / f"{prediction.scores.case}.png"
            draw_sheet(prediction, records.modalities, records.regions, sheet)
        for prediction in predictions([one.case for one in worst_first(scores)[: params.evaluate.pictures]]):
            write_volumes(prediction, records.modalities, volumes_folder / prediction.scores.case)
    return scores


def _load(paths: Sequence[Path], records: Records) -> Segmenter:
    """Load models that must predict the regions of the records."""
    segmenter = load_segmenter(paths)
    if segmenter.card.regions != records.regions:
        raise MisError(
            f"{paths[0]} must predict the records' regions {', '.join(records.regions)}",
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


@contextmanager
def _run_of(
    scores: ModelScores, tracker: MlflowTracker, params: Params, settings: Settings, *, records: Records, results: Path
) -> Iterator[MlflowRun]:
    """Yield a run that has the scores and the sheets, and finish it."""
    tags = {MODEL_TAG: scores.model}
    with tracked(tracker.start_run(EVALUATE, f"test-{scores.model}", params=params.flatten(), tags=tags)) as run:
        find_origin(settings, params.data, records.data_hash, records.left_out).record(run)
        run.log_metrics({f"{TEST_PREFIX}{name}": value for name, value in scores.summary().items()})
        for sheet in sorted((results / SHEETS).glob("*.png")):
            run.log_file(sheet, SHEETS)
        run.log_file(results / CASES, SCORES)
        yield run
