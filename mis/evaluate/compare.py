"""Two evaluated models on the same cases: do they differ, and by how much?"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory

from mis.errors import MisError
from mis.evaluate.session import CASES, SCORES
from mis.evaluate.statistics import PairedTest, mean_of_known, paired_test
from mis.track.base import RunStore

COMPARED = ("dice", "hd95_mm", "lesion_dice", "lesion_hd95_mm", "sensitivity", "specificity", "volume_error_ml")
"""The scores that are compared, for each region; the Dice first, also as the mean over the regions. The volume's errors
are compared by their sizes, whatever their signs."""

LOWER_IS_BETTER = ("hd95_mm", "lesion_hd95_mm", "volume_error_ml")

FEWEST_CASES = 6
"""With fewer Wilcoxon's test cannot find a difference at the level of .05, whatever the scores are."""


@dataclass(frozen=True)
class ComparedScore:
    """What the two models have of one score.

    Attributes:
        score: The score and its region, as a column of the table of cases.
        first: The first model's mean.
        second: The second one's.
        test: The paired test.
    """

    score: str
    first: float
    second: float
    test: PairedTest


def compare_runs(tracker: RunStore, first: str, second: str) -> list[ComparedScore]:
    """Compare the scores of two runs of `evaluate` on the cases that both have.

    Args:
        tracker: Where the runs are.
        first: The id of the first run.
        second: The id of the second run.

    Raises:
        MisError: A run is not there or has no scores of cases, they follow two conventions, or have no case in common.
    """
    conventions = [_convention(tracker, run_id) for run_id in (first, second)]
    if conventions[0] != conventions[1]:
        raise MisError(
            "two runs must be scored by the same convention to be compared",
            got=f"{conventions[0]} and {conventions[1]}",
            do="evaluate one of them again with the other's evaluate.convention",
        )
    tables = [read_scores(tracker, run_id) for run_id in (first, second)]
    cases = sorted(tables[0].keys() & tables[1].keys())
    if not cases:
        raise MisError("two runs must have cases in common to be compared", got=f"none of {first} and {second}")
    columns = [column for column in next(iter(tables[0].values())) if _is_one_of(column, COMPARED)]
    lines = []
    for column in columns:
        one, other = ([_compared(table[case], column) for case in cases] for table in tables)
        test = paired_test(one, other, lower_is_better=_is_one_of(column, LOWER_IS_BETTER))
        lines.append(ComparedScore(column, mean_of_known(one), mean_of_known(other), test))
    return lines


def _convention(tracker: RunStore, run_id: str) -> str:
    run = tracker.read_run(run_id)
    if run is None:
        raise MisError("a run's id must be that of a run in MLflow", got=run_id, do="MLflow shows it with the run")
    return run.params.get("evaluate.convention", "none")


def _is_one_of(column: str, scores: Sequence[str]) -> bool:
    """Return whether a column is one of some scores, for whatever region."""
    return any(column == name or column.rpartition("_")[0] == name for name in scores)


def _compared(scores: Mapping[str, float], column: str) -> float:
    value = scores.get(column, nan)
    return abs(value) if _is_one_of(column, ("volume_error_ml",)) else value


def read_scores(tracker: RunStore, run_id: str) -> Mapping[str, Mapping[str, float]]:
    """Return every score of every case of a run, by the case's name.

    Raises:
        MisError: The run has no scores of cases.
    """
    with TemporaryDirectory() as folder:
        path = tracker.fetch_file(run_id, f"{SCORES}/{CASES}", Path(folder))
        if path is None:
            raise MisError(
                "a run that is compared must have the scores of its cases", got=run_id, do="name runs of `evaluate`"
            )
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    return {row["case"]: {name: float(text) for name, text in row.items() if name != "case" and text} for row in rows}
