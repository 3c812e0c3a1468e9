"""What the stages wrote, as values: all that a report reads."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mis.data.case import REGIONS
from mis.errors import MisError
from mis.params.base import Scalar
from mis.scaling.comparison import Comparison, read_comparison
from mis.track.names import OUT_OF_FOLD_PREFIX, VAL_DICE
from mis.train.checkpoint import best_epoch as first_best_epoch
from mis.tune.trial import Trial, TrialState, best_of

STAGES = ("train", "tune", "evaluate", "scaling")

Row = Mapping[str, str]
Epochs = Sequence[Mapping[str, float]]
"""The metrics of each epoch, in order; NaN where the file has none."""


@dataclass(frozen=True)
class Case:
    """A case of the test split: Dice of each region, their mean, and what a threshold reaches."""

    name: str
    mean: float
    dice: Mapping[str, float]
    threshold_dice_wt: float


@dataclass(frozen=True)
class Evaluation:
    """The test split.

    Attributes:
        model: The stage whose model was the better one.
        val_dice: The validation Dice that it was chosen by.
        out_of_fold: The mean Dice out of fold of each region, and under "" the mean over regions; empty without folds.
        lesions: The mean lesion-wise Dice of each region, and how many false lesions a case has; by the region.
        cases: Every test case.
        sheets: Pictures of the worst of them, the worst first.
        volumes: The folders with the volumes of the same cases.
    """

    model: str
    val_dice: float
    out_of_fold: Mapping[str, float]
    lesions: Mapping[str, tuple[float, float]]
    cases: Sequence[Case]
    sheets: Sequence[Path]
    volumes: Sequence[Path]

    @property
    def regions(self) -> list[str]:
        """The regions that were scored."""
        return list(self.cases[0].dice) if self.cases else []


@dataclass(frozen=True)
class Results:
    """All stages.

    Attributes:
        history: The training's learning curve; with folds, the mean over their cases.
        folds: How many folds were trained; None where one training was.
        trials: The search, in the order of the trials' starts.
        evaluation: The test split.
        scaling: The comparison of the modes.
        measured_on: What each stage ran on, by the stage's name.
    """

    history: Epochs
    folds: int | None
    trials: Sequence[Trial]
    evaluation: Evaluation
    scaling: Comparison
    measured_on: Mapping[str, Mapping[str, Any]]

    @property
    def best_trial(self) -> Trial | None:
        """The trial with the best validation Dice, the earliest of equals; None if none has one."""
        return best_of(self.trials)


def read_results(folder: Path) -> Results:
    """Read what the stages wrote.

    Args:
        folder: The one with `train/`, `tune/`, `evaluate/` and `scaling/`.

    Raises:
        MisError: A file is missing, lacks a column, or holds a word where a number belongs.
    """
    train, tune, evaluate, scaling = (_Stage(folder / name) for name in STAGES)
    return Results(
        history=[_numbers(row) for row in train.rows("history.csv", "epoch", VAL_DICE)],
        folds=_folds(train),
        trials=_trials(tune),
        evaluation=_evaluation(evaluate),
        scaling=_scaling(scaling),
        measured_on={stage.name: stage.json("measured_on.json") for stage in (train, tune, evaluate, scaling)},
    )


def best_epoch(epochs: Epochs) -> int | None:
    """Return the number of the first epoch with the best validation Dice; None if none has one.

    >>> best_epoch([{"epoch": 1, "val/dice": 0.2}, {"epoch": 2, "val/dice": 0.3}, {"epoch": 3, "val/dice": 0.3}])
    2
    """
    has_score = any(not math.isnan(epoch[VAL_DICE]) for epoch in epochs)
    return first_best_epoch(epochs) if has_score else None


def region_names(columns: Sequence[str], prefix: str) -> list[str]:
    """Return the regions that columns such as `val/dice_wt` name, the largest first.

    >>> region_names(["epoch", "val/dice", "val/dice_et", "val/dice_wt"], "val/dice_")
    ['WT', 'ET']
    """
    return [name for name in REGIONS if f"{prefix}{name.lower()}" in columns]


@dataclass(frozen=True)
class _Stage:
    """The folder of a stage's results; it says which stage to run when a file is not as it should be."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise MisError(f"the report needs {path}, which is missing", do=f"run `dvc repro {self.name}`")
        return path

    def damaged(self, name: str, reason: str) -> MisError:
        do = f"run `dvc repro --force --single-item {self.name}`"
        return MisError(f"{self.folder / name} is damaged: {reason}", do=do)

    def json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self.path(name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise self.damaged(name, str(error)) from None
        if not isinstance(content, dict):
            raise self.damaged(name, "it must hold an object")
        return content

    def rows(self, name: str, *numeric: str) -> list[Row]:
        """Return a table's rows; where there are any, the columns named hold numbers or nothing."""
        with self.path(name).open(newline="", encoding="utf-8") as file:
            rows: list[Row] = list(csv.DictReader(file, restval=""))
        for row, column in product(rows, numeric):
            if column not in row:
                raise self.damaged(name, f"it has no column {column}")
            if not _is_number(row[column] or "nan"):
                raise self.damaged(name, f"{column} must be a number, got {row[column]!r}")
        return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str | None) -> float:
    return float(text) if text and _is_number(text) else math.nan


def _numbers(row: Row) -> dict[str, float]:
    return {column: _number(text) for column, text in row.items()}


def _dice(row: Row, prefix: str) -> dict[str, float]:
    return {name: _number(row[f"{prefix}{name.lower()}"]) for name in region_names(list(row), prefix)}


def _trials(stage: _Stage) -> list[Trial]:
    histories: dict[str, list[dict[str, float]]] = {}
    for row in stage.rows("history.csv", "epoch", VAL_DICE):
        histories.setdefault(row["trial"], []).append(_numbers(row))
    return [
        _trial(stage, row, histories.get(row["trial"], [])) for row in stage.rows("trials.csv", "trial", "elapsed_s")
    ]


def _trial(stage: _Stage, row: Row, history: list[dict[str, float]]) -> Trial:
    try:
        state = TrialState(row.get("state", ""))
    except ValueError:
        known = ", ".join(TrialState)
        raise stage.damaged("trials.csv", f"state must be one of {known}, got {row.get('state')!r}") from None
    trial = Trial(
        number=int(row["trial"]),
        values={name: _scalar(text) for name, text in row.items() if name.startswith(("model.", "train.")) and text},
        state=state,
        elapsed_s=_number(row["elapsed_s"]),
        error=row.get("error", ""),
    )
    return trial.with_history(history)


def _scalar(text: str) -> Scalar:
    """Return the value that a text stands for.

    >>> [_scalar(text) for text in ("True", "4", "0.5", "group")]
    [True, 4, 0.5, 'group']
    """
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _folds(stage: _Stage) -> int | None:
    folds = stage.json("metrics.json").get("folds")
    return None if folds is None else int(folds)


def _evaluation(stage: _Stage) -> Evaluation:
    chosen = stage.json("metrics.json")
    missing = {"model", "val_dice"} - set(chosen)
    if missing:
        raise stage.damaged("metrics.json", f"it has no {min(missing)}")
    cases = [
        Case(row["case"], _number(row["dice"]), _dice(row, "dice_"), _number(row["threshold_dice_wt"]))
        for row in stage.rows("cases.csv", "dice", "threshold_dice_wt")
    ]
    scores = {case.name: case.mean for case in cases}
    shown = [path for path in stage.path("volumes").iterdir() if path.is_dir()]
    volumes = sorted(shown, key=lambda path: _worst_first(scores.get(path.name, math.nan), path.name))
    sheets = [stage.path(f"sheets/{path.name}.png") for path in volumes]
    mean = f"{OUT_OF_FOLD_PREFIX}dice"
    out_of_fold = {"": float(chosen[mean])} if mean in chosen else {}
    for region in region_names(list(chosen), f"{mean}_"):
        out_of_fold[region] = float(chosen[f"{mean}_{region.lower()}"])
    lesions = {}
    for region in region_names(list(chosen), "lesion_dice_"):
        scores_of = (chosen.get(f"{score}_{region.lower()}") for score in ("lesion_dice", "lesions_false"))
        lesion_dice, false = (math.nan if value is None else float(value) for value in scores_of)
        lesions[region] = (lesion_dice, false)
    return Evaluation(str(chosen["model"]), float(chosen["val_dice"]), out_of_fold, lesions, cases, sheets, volumes)


def _worst_first(dice: float, name: str) -> tuple[bool, float, str]:
    """Return the key that cases are sorted by: those without a Dice come last."""
    return math.isnan(dice), dice, name


def _scaling(stage: _Stage) -> Comparison:
    name = "comparison.json"
    try:
        comparison = read_comparison(stage.path(name))
    except ValueError as error:
        raise stage.damaged(name, str(error).splitlines()[0]) from None
    if not any(measured.cell.devices == 1 for measured in comparison.cells):
        raise stage.damaged(name, "no cell has one device")
    return comparison
