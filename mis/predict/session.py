"""Predict the cases of a folder: one after another, resumable, with what went wrong listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mis.data.case import Case, DataSet
from mis.data.check.case import CheckedCase, check_case
from mis.data.check.findings import errors
from mis.data.check.wording import sentence
from mis.data.records.preprocess import filled, standardise_as_recorded
from mis.errors import MisError
from mis.files import read_json, write_csv, write_json
from mis.params.predict import PredictParams
from mis.predict.labels import nested_labels, regions_from_probabilities
from mis.predict.model import Segmenter
from mis.predict.output import write_volume

RECIPE = "prediction.json"
"""How the label maps of a folder were made."""

FAILED = "failed.csv"
"""The cases of a folder that could not be predicted, and why."""

SUFFIX = ".nii.gz"
PROBABILITIES = "_probabilities"
PROBABILITY_STEP = 1 / 255
"""Probabilities are stored as whole numbers of it, a byte each; a viewer multiplies them by it again."""


@dataclass(frozen=True)
class Outcome:
    """What came of the cases.

    Attributes:
        predicted: The cases whose label map was written.
        kept: Those whose label map an earlier call has written.
        failed: What is wrong with each of the others, by the case's name.
    """

    predicted: Sequence[str]
    kept: Sequence[str]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class _Task:
    """What is predicted of every case, and where it goes."""

    segmenter: Segmenter
    data: DataSet
    folder: Path
    params: PredictParams
    label_values: Mapping[str, Sequence[int]]
    with_probabilities: bool

    def is_done(self, case: Case) -> bool:
        """Return whether all files of a case are there."""
        names = [case.id, *([case.id + PROBABILITIES] if self.with_probabilities else [])]
        return all((self.folder / f"{name}{SUFFIX}").is_file() for name in names)

    def predict(self, case: Case) -> None:
        """Write the files of a case, the label map last: a case is done when it is there."""
        checked = check_case(case, self.data, self.segmenter.card.data)
        if not checked.usable:
            raise MisError("; ".join(sentence(finding) for finding in errors(checked.findings)))
        geometry = checked.geometry
        assert geometry is not None  # noqa: S101 - it is usable
        probability = self.segmenter.probabilities(image_of(checked), self.params)
        if self.with_probabilities:
            stored = np.round(probability / PROBABILITY_STEP).astype(np.uint8)
            channels = np.stack([geometry.to_file(stored[..., region]) for region in range(stored.shape[-1])], axis=-1)
            path = self.folder / f"{case.id}{PROBABILITIES}{SUFFIX}"
            write_volume(path, channels, case.images[0], scale=PROBABILITY_STEP)
        predicted = regions_from_probabilities(probability, self.params.threshold, self.params.min_voxels)
        labels = nested_labels(predicted, self.segmenter.card.regions, self.label_values)
        write_volume(self.folder / f"{case.id}{SUFFIX}", geometry.to_file(labels), case.images[0])

    def recipe(self) -> dict[str, object]:
        """Return how the label maps are made."""
        return {
            "models": self.segmenter.digest,
            "regions": list(self.segmenter.card.regions),
            "records": self.segmenter.card.records,
            "label_values": {region: list(numbers) for region, numbers in self.label_values.items()},
            "rule": "nested",
            # How many windows at once changes nothing.
            "predict": self.params.model_dump(mode="json", exclude={"batch_size"}),
        }


def predict_cases(
    segmenter: Segmenter,
    data: DataSet,
    folder: Path,
    params: PredictParams,
    *,
    label_values: Mapping[str, Sequence[int]] | None = None,
    with_probabilities: bool = False,
    again: bool = False,
    progress: bool = True,
) -> Outcome:
    """Predict the cases without a label of a data set, and write `<case>.nii.gz` for each, as the challenges take them.

    Each file is written whole or not at all, and a call that was interrupted goes on with the cases that are missing.

    Args:
        segmenter: The models.
        data: The cases.
        folder: Where the label maps go.
        params: Windows, threshold, and the smallest lesion.
        label_values: The label values of each region; those of the data set's layout by default.
        with_probabilities: Whether to write `<case>_probabilities.nii.gz` as well, (x, y, z, region).
        again: Whether to replace what is there.
        progress: Whether to show a progress bar.

    Raises:
        MisError: The folder has label maps that were made otherwise, or the windows do not fit the model.
    """
    task = _Task(segmenter, data, folder, params, label_values or data.regions, with_probabilities)
    _agree_with_earlier(task, again=again)
    failed = {finding.case: sentence(finding) for finding in errors(data.findings) if finding.case}
    predicted, kept = [], []
    with tqdm(data.unlabelled, desc="predict", unit="case", disable=not progress) as bar:
        for case in bar:
            bar.set_postfix_str(case.id)
            if task.is_done(case) and not again:
                kept.append(case.id)
                continue
            try:
                task.predict(case)
                predicted.append(case.id)
            except MisError as error:
                failed[case.id] = str(error)
    _write_failed(folder, failed)
    return Outcome(predicted, kept, failed)


def _agree_with_earlier(task: _Task, *, again: bool) -> None:
    """Check that the label maps of a folder are made in one way, and note which."""
    path, recipe = task.folder / RECIPE, task.recipe()
    if path.is_file() and not again:
        earlier = read_json(path)
        if changed := [name for name in recipe if earlier.get(name) != recipe[name]]:
            raise MisError(
                f"{task.folder} must have predictions of one kind, got others in {RECIPE} ({', '.join(changed)})",
                do="take another folder, or --again to replace them",
            )
    write_json(path, recipe)


def image_of(checked: CheckedCase) -> NDArray[np.float16]:
    """Return the image of a usable case as a training sees it, float16 (x, y, z, modality) in the box of the brain."""
    assert checked.brain is not None  # noqa: S101 - it is usable
    return filled(checked.brain.mask, standardise_as_recorded(checked.brain.values))


def _write_failed(folder: Path, failed: Mapping[str, str]) -> None:
    path = folder / FAILED
    if failed:
        write_csv(path, [{"case": case, "reason": reason} for case, reason in sorted(failed.items())])
    else:
        path.unlink(missing_ok=True)
