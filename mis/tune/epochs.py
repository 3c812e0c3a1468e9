"""What is reported of each epoch of a trial: to Ray's scheduler, to the tracker, to the console."""

from collections.abc import Mapping
from typing import Any

from mis.track.names import BEST_DICE, VAL_DICE
from mis.train.checkpoint import History

EPOCH = "epoch"
"""The key of an epoch's number, from 1, in a report."""


def reports(history: History) -> list[dict[str, float]]:
    """Return a report of each epoch: its metrics, its number, and the best validation Dice so far.

    The best so far never falls: a scheduler that compares trials by it does not stop one for a single bad epoch, and a
    stopped trial counts with what it has reached.

    >>> [report["best/dice"] for report in reports([{"val/dice": 0.2}, {"val/dice": 0.1}])]
    [0.2, 0.2]
    """
    best, rows = 0.0, []
    for number, epoch in enumerate(history, start=1):
        best = max(best, epoch[VAL_DICE])
        rows.append({**epoch, EPOCH: number, BEST_DICE: best})
    return rows


def metrics_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a report, without what Ray adds to it."""
    return {name: value for name, value in report.items() if "/" in name and isinstance(value, float)}
