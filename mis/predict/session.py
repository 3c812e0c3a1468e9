"""Predict the cases of a folder: one after another, resumable, with what went wrong listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

NOTES = "prediction.json"
"""How the label maps of a folder were made, and from which images each."""

FAILED = "failed.csv"
"""The cases of a folder that could not be predicted, and why."""

SUFFIX = ".nii.gz"
PROBABILITIES = "_probabilities"
MOST_SHOWN = 60
"""The most characters of two values that a message has: hashes are longer."""

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

    def files(self, case: Case) -> list[Path]:
        """Return the files that are written of a case, the label map last."""
        names = [*([case.id + PROBABILITIES] if self.with_probabilities else []), case.id]
        return [self.folder / f"{name}{SUFFIX}" for name in names]

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
    segmenter.check_window(params)
    notes = _Notes(task, again=again)
    failed = {finding.case: sentence(finding) for finding in errors(data.findings) if finding.case}
    predicted, kept = [], []
    with tqdm(data.unlabelled, desc="predict", unit="case", disable=not progress) as bar:
        for case in bar:
            bar.set_postfix_str(case.id)
            if notes.is_done(case):
                kept.append(case.id)
                continue
            try:
                notes.begin(case)
                task.predict(case)
                notes.done(case)
                predicted.append(case.id)
            except MisError as error:
                notes.failed(case)
                failed[case.id] = str(error)
    _write_failed(folder, failed)
    return Outcome(predicted, kept, failed)


class _Notes:
    """How the label maps of a folder were made, and which case was made how, from which files: `prediction.json`."""

    def __init__(self, task: _Task, *, again: bool) -> None:
        """Read the notes of earlier calls.

        Raises:
            MisError: There are label maps that were made otherwise, and they are not to be replaced; or files of their
                names that no earlier call has written.
        """
        self.task, self.again = task, again
        self.recipe = task.recipe()
        self.path = task.folder / NOTES
        earlier = read_json(self.path) if self.path.is_file() else {"recipe": {}, "cases": {}}
        changed = differences(earlier["recipe"], self.recipe)
        if earlier["cases"] and changed and not again:
            raise MisError(
                f"{task.folder} must have label maps of one kind ({NOTES})",
                got=f"others, which differ in {', '.join(changed)}",
                do="take another folder, or --again to replace them",
            )
        new = [case for case in task.data.unlabelled if case.id not in earlier["cases"]]
        if of_others := [path for case in new for path in task.files(case) if path.exists()]:
            raise MisError(  # it may be the image itself, or a label
                "nothing must be written over that mis.predict has not written",
                got=of_others[0],
                do="choose another OUTPUT",
            )
        # After a change nothing that an earlier call has made is done.
        self.cases: dict[str, object] = dict.fromkeys(earlier["cases"]) if changed else dict(earlier["cases"])

    def is_done(self, case: Case) -> bool:
        """Return whether a case's files are there, made in this way from these images."""
        return (
            not self.again
            and self.cases.get(case.id) == self._images(case)
            and all(path.is_file() for path in self.task.files(case))
        )

    def begin(self, case: Case) -> None:
        """Note that the files of a case are about to be written: they are of this folder's calls."""
        self._note(case, None)

    def done(self, case: Case) -> None:
        """Note that a case was predicted."""
        self._note(case, self._images(case))

    def _note(self, case: Case, images: object) -> None:
        self.cases[case.id] = images
        write_json(self.path, {"recipe": self.recipe, "cases": self.cases})

    def failed(self, case: Case) -> None:
        """Remove what an earlier call has written of a case that fails now: it is of other images or another model."""
        self.cases.pop(case.id, None)
        for path in self.task.files(case):
            path.unlink(missing_ok=True)

    @staticmethod
    def _images(case: Case) -> list[list[object]]:
        states = ((path, path.stat()) for path in case.images if path.exists())
        return [[str(path.resolve()), state.st_size, state.st_mtime_ns] for path, state in states]


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the names of what is not as it was, each with both values where they are short.

    >>> differences({"rule": "nested", "predict": {"overlap": 0.5}}, {"rule": "nested", "predict": {"overlap": 0.25}})
    ['predict.overlap (0.5 there, 0.25 now)']
    """
    found = []
    for name, value in now.items():
        before = earlier.get(name)
        if before == value:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            found += differences(before, value, f"{prefix}{name}.")
        elif len(f"{before}{value}") < MOST_SHOWN:
            found.append(f"{prefix}{name} ({before} there, {value} now)")
        else:
            found.append(f"{prefix}{name}")
    return found


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
