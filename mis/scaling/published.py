"""The model's terms against published tables, of which one half is fitted and the other predicted.

The halves were chosen before the errors were known: NVIDIA's V100 are fitted and its A100 predicted; of each machine of
MLPerf the two smaller sizes are fitted and the largest is predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ruamel.yaml import YAML

TABLES = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Prediction:
    """A published figure beside what the model says of it.

    Attributes:
        what: The figure, with its unit.
        machine: Whose it is.
        devices: On how many devices.
        half: `fitted` or `predicted`.
        published: The figure.
        predicted: What the model says.
    """

    what: str
    machine: str
    devices: int
    half: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """By which part of the published figure the model is too high."""
        return self.predicted / self.published - 1


def predictions() -> list[Prediction]:
    """Return every figure of the published tables beside what the model says of it."""
    tables = YAML(typ="safe").load(TABLES.read_text(encoding="utf-8"))
    return [*_trainings(tables["training"]), *_throughputs(tables["throughput"])]


def _trainings(rows: Sequence[dict[str, Any]]) -> list[Prediction]:
    """Predict minutes on 8 devices: the steps take as much less as is published, a part of the time stays.

    The part that does not scale (`Costs.epoch_s`) is the mean of those that follow from the fitted rows.
    """
    fixed = fmean(_fixed_share(row) for row in rows if row["half"] == "fitted")
    return [
        Prediction(
            "minutes of a training",
            row["name"],
            8,
            row["half"],
            row["minutes"][1],
            row["minutes"][0] * (fixed + (1 - fixed) * row["images_per_s"][0] / row["images_per_s"][1]),
        )
        for row in rows
    ]


def _fixed_share(row: dict[str, Any]) -> float:
    """Return the part of a training on one device that takes as long on eight.

    >>> round(_fixed_share({"images_per_s": [1, 8], "minutes": [100, 30]}), 3)
    0.2
    """
    steps = float(row["images_per_s"][0] / row["images_per_s"][1])
    return float((row["minutes"][1] / row["minutes"][0] - steps) / (1 - steps))


def _throughputs(rows: Sequence[dict[str, Any]]) -> list[Prediction]:
    """Predict samples a second and initialisation of the largest size from the two smaller ones.

    A device takes as long for a sample as for computing it, and the latency of the all-reduce, which grows with the
    devices as 2 (n - 1) messages do (`mis.scaling.costs.all_reduce_s`); initialisation grows with the devices too.
    """
    found = []
    for row in rows:
        gpus = row["gpus"]
        per_sample = [count / rate for count, rate in zip(gpus, row["samples_per_s"], strict=True)]
        for what, seconds, published in (
            ("samples a second", per_sample, row["samples_per_s"]),
            ("seconds of initialisation", row["initialisation_s"], row["initialisation_s"]),
        ):
            slope = (seconds[1] - seconds[0]) / (gpus[1] - gpus[0])
            for index, count in enumerate(gpus):
                modelled = seconds[0] + slope * (count - gpus[0])
                half = "predicted" if index == len(gpus) - 1 else "fitted"
                value = count / modelled if what == "samples a second" else modelled
                found.append(Prediction(what, row["name"], count, half, published[index], value))
    return found
