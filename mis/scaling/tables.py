"""What the simulator says, as rows of tables."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mis.scaling import paper
from mis.scaling.against import compare_with, read_runs
from mis.scaling.published import predictions
from mis.scaling.reported import GPUS, REPORTED

Row = dict[str, object]


def published_rows() -> list[Row]:
    """Return published figures beside what the model says, with the error."""
    return [{**asdict(prediction), "error": prediction.error} for prediction in predictions()]


def against_rows(path: Path) -> list[Row]:
    """Return what was run beside its simulation, with the error.

    Raises:
        MisError: The file is not there, or is no such file.
    """
    compared = [compare_with(run) for run in read_runs(path)]
    return [{**asdict(one), "error": one.error} for one in compared]


def paper_tables() -> dict[str, Sequence[Row]]:
    """Return the explanation of the paper's speed-ups, by the title of each table."""
    costs = paper.cluster()
    return {
        "the parameters": costs.rows(),
        "the paper's two modes on its cluster": [
            {**point.row(), "reported": REPORTED[point.mode] if point.devices == GPUS else None}
            for point in paper.explained(costs)
        ],
        "the two speed-ups where an assumed parameter is another one": [
            asdict(changed) for changed in paper.sensitivities(costs)
        ],
        "the same cluster, step by step": [{"step": name, **point.row()} for name, point in paper.improvements(costs)],
    }
