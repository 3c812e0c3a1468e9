"""Predictions of test cases, and their scores on the grid of the cases' files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from mis.data.case import Case, DataSet
from mis.data.pipeline.dataset import case_batches
from mis.data.records.index import Records
from mis.data.records.preprocess import region_bits, region_channels
from mis.data.volumes import read_image, without_trailing_axes
from mis.errors import MisError
from mis.evaluate.scores import CONVENTIONS, RegionScores
from mis.evaluate.statistics import mean_of_known
from mis.params.predict import PredictParams
from mis.predict.labels import nested_labels, regions_from_probabilities
from mis.predict.model import Segmenter


@dataclass(frozen=True)
class CaseScores:
    """The scores of the prediction of a case.

    Attributes:
        case: The name of the case.
        regions: The scores of each region, by the region's name.
    """

    case: str
    regions: Mapping[str, RegionScores]

    @property
    def dice(self) -> dict[str, float]:
        """The Dice of each region, by the region's name."""
        return {region: scores.dice for region, scores in self.regions.items()}

    @property
    def mean(self) -> float:
        """The mean Dice over the regions that have one; not a number where none has."""
        return mean_of_known(self.dice.values())

    def values(self) -> dict[str, float]:
        """Return the mean Dice, and every score of every region as `score_region`."""
        scores = {region: asdict(values) for region, values in self.regions.items()}
        names = next(iter(scores.values()))
        return {"dice": self.mean} | {
            f"{name}_{region.lower()}": scores[region][name] for name in names for region in scores
        }

    def row(self) -> dict[str, object]:
        """Return the case's row of a table: its name, the mean Dice and all scores."""
        return {"case": self.case} | {name: round(value, 6) for name, value in self.values().items()}


@dataclass(frozen=True)
class Prediction:
    """A case with its prediction. It takes 0.2 GB at 240 x 240 x 155: few can be in memory at the same time.

    Attributes:
        scores: The scores of the prediction, on the grid of the case's file.
        image: float32 (x, y, z, modality), standardised over the brain, in the box of the brain.
        truth: bool (x, y, z, region): the segmentation of the data set, in the same box.
        predicted: bool (x, y, z, region): the segmentation of the model, in the same box.
        affine: (4, 4): from the voxels of the box, whose axes are RAS, to millimetres.
    """

    scores: CaseScores
    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The edges of a voxel of the box, (x, y, z)."""
        x, y, z = (float(edge) for edge in voxel_sizes(self.affine))
        return x, y, z


TruthOfCase = Callable[[str], NDArray[np.bool_]]
"""Returns the true regions of a case on the grid of its file, bool (x, y, z, region)."""


def truth_of_files(data: DataSet, regions: Sequence[str]) -> TruthOfCase:
    """Return the function that reads the truth of a case from its label's file.

    Args:
        data: The data set.
        regions: The regions that are wanted.
    """
    cases: Mapping[str, Case] = {case.id: case for case in data.cases}

    def truth(name: str) -> NDArray[np.bool_]:
        case = cases.get(name)
        if case is None or case.label is None:
            raise MisError(
                f"{data.root} must have the label of case {name}", got="none", do="run `dvc repro preprocess`"
            )
        label = without_trailing_axes(read_image(case.label).voxels, 3)
        return _regions_of(np.asarray(label).astype(np.uint8), data, regions)

    return truth


def predict_cases(
    segmenter: Segmenter,
    records: Records,
    cases: Sequence[str],
    params: PredictParams,
    *,
    data: DataSet,
    convention: str,
) -> Iterator[Prediction]:
    """Predict the cases one after the other, and score the label map that `python -m mis.predict` writes of each.

    Args:
        segmenter: The models.
        records: The records that the cases are read from.
        cases: The names of the cases.
        params: Windows, threshold, and the smallest lesion.
        data: The data set of the records, which has the truth.
        convention: A name of `mis.evaluate.scores.CONVENTIONS`.
    """
    truth_of, score, regions = truth_of_files(data, records.regions), CONVENTIONS[convention], records.regions
    for case in cases:
        geometry = records.cases[case].geometry
        in_box = replace(records, shape=geometry.size)  # not on the grid that all share, which may cut it
        ((images, truths, _),) = case_batches(in_box, [case], batch_size=1)
        image, truth = images.numpy()[0].astype(np.float32), truths.numpy()[0] > 0
        probability = segmenter.probabilities(image, params)
        predicted = regions_from_probabilities(probability, params.threshold, params.min_voxels)
        labels = nested_labels(predicted, regions, data.regions)
        in_file = _regions_of(geometry.to_file(labels), data, regions)
        true_in_file, spacing_mm = truth_of(case), voxel_sizes(np.asarray(geometry.affine))
        scores = {
            region: score(true_in_file[..., channel], in_file[..., channel], spacing_mm)
            for channel, region in enumerate(regions)
        }
        in_labels = _regions_of(labels, data, regions)
        yield Prediction(CaseScores(case, scores), image, truth, in_labels, geometry.box_affine)


def _regions_of(labels: NDArray[np.uint8], data: DataSet, regions: Sequence[str]) -> NDArray[np.bool_]:
    """Return the regions of a label map, bool (x, y, z, region)."""
    channels = [list(data.regions).index(region) for region in regions]
    return region_channels(region_bits(labels, data.regions), channels).astype(bool)
