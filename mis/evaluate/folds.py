"""The scores of every case that was trained on, each by the member of an ensemble that was not trained on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from tqdm import tqdm

from mis.data.case import DataSet
from mis.data.pipeline.dataset import damage_as_error
from mis.data.records.index import Records
from mis.errors import MisError
from mis.evaluate.cases import CaseScores, predict_cases
from mis.evaluate.statistics import mean_of_known
from mis.params.load import Params
from mis.predict.model import load_segmenter
from mis.track.names import OUT_OF_FOLD_PREFIX

TABLE = "folds.csv"
"""The table with the scores of each case out of fold."""


@dataclass(frozen=True)
class OutOfFold:
    """The scores of cases by the models that were not trained on them.

    Attributes:
        folds: The scores of the cases of each fold.
    """

    folds: Sequence[Sequence[CaseScores]]

    def rows(self) -> list[dict[str, object]]:
        """Return a row for each case with its fold and its scores."""
        return [{"fold": fold, **scores.row()} for fold, cases in enumerate(self.folds) for scores in cases]

    def summary(self) -> dict[str, float]:
        """Return the mean over all cases of each score that any of them has, as `CaseScores.values` names them."""
        values = [scores.values() for cases in self.folds for scores in cases]
        means = {name: mean_of_known(case[name] for case in values) for name in values[0]}
        return {name: value for name, value in means.items() if not isnan(value)}

    def metrics(self) -> dict[str, float]:
        """Return the summary under the names of the tracker's metrics."""
        return {f"{OUT_OF_FOLD_PREFIX}{name}": value for name, value in self.summary().items()}


def score_folds(ensemble: Path, records: Records, data: DataSet, params: Params) -> OutOfFold:
    """Score the cases of each fold by its own model, as the stage `evaluate` scores the test cases.

    Args:
        ensemble: The file of the ensemble, whose members are the models of the folds, in their order.
        records: The records that they were trained on.
        data: The data set of the records, which has the truth.
        params: `train.folds`, how models are applied, and the convention of the scores.

    Raises:
        MisError: The file has not as many members as there are folds, or a case has no label.
    """
    segmenter = load_segmenter([ensemble])
    if len(segmenter.models) != params.train.folds:
        raise MisError(
            f"{ensemble} must have a member for each of train.folds = {params.train.folds}",
            got=len(segmenter.models),
            do="train again",
        )
    parts = records.cases_of_folds(params.train.folds)
    folds: list[list[CaseScores]] = []
    with tqdm(total=sum(map(len, parts)), desc="out of fold", unit="case") as bar, damage_as_error(records):
        for member, cases in zip(segmenter.models, parts, strict=True):
            folds.append([])
            alone, convention = replace(segmenter, models=(member,)), params.evaluate.convention
            for prediction in predict_cases(alone, records, cases, params.predict, data=data, convention=convention):
                folds[-1].append(prediction.scores)
                bar.update()
    return OutOfFold(folds)
