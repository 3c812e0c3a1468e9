"""Results of a run, small and made by hand, in the formats that the stages write."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from mis.data.case import MODALITIES
from mis.evaluate.cases import CaseScores, Prediction
from mis.evaluate.scores import brats2023
from mis.evaluate.volumes import write_volumes
from mis.files import write_csv, write_json
from mis.params.scaling import each_of
from mis.scaling.comparison import Comparison, write_comparison
from mis.style import png
from tests.scaling.cells import EPOCHS, cell

MEASURED = {
    "machine": {"host": "node7", "cpu": "EPYC", "cores": "8", "memory_gib": "62.5", "os": "Linux"},
    "versions": {"python": "3.11.7", "keras": "3.15.1", "tensorflow": "2.21.0", "ray": "2.60.0"},
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "measured_at": "2026-11-23T07:36:04+00:00",
}


class Run:
    """The files of a run; a test changes what it is about and writes them."""

    def __init__(self, folder, regions=("WT", "TC", "ET"), devices=(1, 2), rounds=2):
        self.folder = folder
        self.regions = [name.lower() for name in regions]
        self.measured = {stage: dict(MEASURED) for stage in ("train", "tune", "evaluate", "scaling")}
        self.history = [self.epoch(1, 0.2), self.epoch(2, 0.6), self.epoch(3, 0.5)]
        self.trained = {"dice": 0.6}
        self.trials = [
            self.trial("000", "completed", [0.1, 0.3], 1e-3, "batch"),
            self.trial("001", "completed", [0.2, 0.4], 1e-2, "group"),
            self.trial("002", "stopped", [0.05], 2e-2, "batch"),
        ]
        self.chosen = {"model": "train", "val_dice": 0.6}
        self.cases = [self.case("BRATS_003", 0.8, 0.3), self.case("BRATS_011", 0.6, 0.5)]
        self.pictures = ["BRATS_003"]
        self.cells = [
            (mode, count, number)
            for number in range(rounds)
            for mode in ("experiment", "data")
            for count in devices
            if count > 1 or mode == "experiment"
        ]

    def epoch(self, number, dice):
        row = {"epoch": number, "train/loss": 1 - dice, "train/dice": dice, "val/loss": 1 - dice, "val/dice": dice}
        return row | {f"val/dice_{name}": dice for name in self.regions} | {"time/epoch_s": 1.5}

    def trial(self, name, state, curve, *values, error=""):
        """Return a trial's line, and the lines of its epochs."""
        best = max(curve, default="")
        scores = {"val/dice": best, **{f"val/dice_{name}": best for name in self.regions}} if curve else {}
        line = {"trial": name, "state": state, "epochs": len(curve), **scores, "elapsed_s": 12.34}
        line |= dict(zip(("train.learning_rate", "model.norm"), values, strict=True)) | {"error": error}
        return line, [{"trial": name, **self.epoch(number, dice)} for number, dice in enumerate(curve, start=1)]

    def case(self, name, dice, threshold):
        own = {f"dice_{region}": dice for region in self.regions}
        return {"case": name, "dice": dice, **own, "threshold_dice_wt": threshold}

    def elapsed_s(self, mode, count, number):
        """8 s on one device; data parallelism is worth 1.6 on two, experiment parallelism 2."""
        return (8 + number) / (1 if count == 1 else count if mode == "experiment" else 0.8 * count)

    def write(self):
        for stage, facts in self.measured.items():
            write_json(self._path(stage, "measured_on.json"), facts)
        write_csv(self._path("train", "history.csv"), self.history)
        write_json(self._path("train", "metrics.json"), self.trained)
        write_csv(self._path("tune", "trials.csv"), [line for line, _ in self.trials])
        write_csv(self._path("tune", "history.csv"), [epoch for _, epochs in self.trials for epoch in epochs])
        write_json(self._path("evaluate", "metrics.json"), self.chosen)
        write_csv(self._path("evaluate", "cases.csv"), self.cases)
        self._path("evaluate", "sheets").mkdir(parents=True)
        self._path("evaluate", "volumes").mkdir(parents=True)
        for case in self.cases:
            self._path("evaluate", "sheets", f"{case['case']}.png").write_bytes(png(Figure(figsize=(0.2, 0.2))))
        for name in self.pictures:
            write_volumes(self.prediction(name), MODALITIES, self._path("evaluate", "volumes", name))
        self._write_scaling()
        return self.folder

    def prediction(self, name):
        """Return a case of a cube in a sphere; a part of the cube was missed, and some air taken for tumour."""
        x, y, z = np.indices((20, 24, 18)) - np.array([10, 12, 9]).reshape(3, 1, 1, 1)
        brain = (x**2 + y**2 + z**2 < 64)[..., np.newaxis]
        image = np.where(brain, np.random.default_rng(0).normal(size=(20, 24, 18, 4)), 0).astype(np.float32)
        truth = np.stack([(abs(x) < 5 - n) & (abs(y) < 5 - n) & (abs(z) < 5 - n) for n in range(len(self.regions))], -1)
        score = brats2023(truth[..., 0], truth[..., 0], (1, 1, 1))
        scores = CaseScores(name, dict.fromkeys((region.upper() for region in self.regions), score))
        return Prediction(scores, image, truth, np.roll(truth, 2, axis=0), np.diag([-1.0, -1.0, 1.0, 1.0]))

    def _path(self, *parts):
        return self.folder.joinpath(*parts)

    def _write_scaling(self):
        cells = []
        for mode, count, number in self.cells:
            trials = max(4, count)
            at_once = count // each_of(mode, count)
            single_s = self.elapsed_s(mode, count, number) * each_of(mode, count) / (trials / at_once)
            cells.append(cell(mode, count, number, single_s, trials))
        write_comparison(self._path("scaling", "comparison.json"), Comparison(cells, EPOCHS, batch_size=4))


@pytest.fixture
def run(tmp_path):
    """A run with everything in it."""
    return Run(tmp_path / "results")


@pytest.fixture
def make_run(tmp_path):
    """Make a run with other regions or numbers of devices."""
    return lambda **kwargs: Run(tmp_path / "results", **kwargs)
