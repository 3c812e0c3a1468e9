"""The layout of the Medical Segmentation Decathlon's Task01_BrainTumour."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mis.data.case import Case, DataSet, files_of, patient_of
from mis.data.check.findings import Finding
from mis.data.layouts.files import volumes
from mis.data.layouts.index import (
    INDEX,
    case_name,
    count_findings,
    named_file,
    read_index,
    undeclared,
    without_repeated,
)
from mis.errors import MisError

MSD_MODALITIES = ("FLAIR", "T1w", "t1gd", "T2w")
MSD_LABELS = {0: "background", 1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
MSD_REGIONS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}


def read_msd(root: Path, *, with_labels: bool = True) -> DataSet:
    """Read `dataset.json`, `imagesTr`, `labelsTr` and perhaps `imagesTs`.

    Args:
        root: The folder of the data set.
        with_labels: Whether labels are wanted; else every case is one without.

    Raises:
        MisError: dataset.json is missing, or its modalities or labels are not those of Task01.
    """
    index = read_index(root)
    _check_names(index, root / INDEX)
    findings: list[Finding] = []
    training = index["training"] if with_labels else ()
    cases = [case for entry in training if (case := _labelled(root, entry, findings))]
    test = index.get("test", ())
    images = test if with_labels else [*(_image(root, entry) for entry in index["training"]), *test]
    unlabelled = [case for image in images if (case := _unlabelled(root, image, findings))]
    known, repeated = without_repeated([*cases, *unlabelled])
    named = {name for entry in [*index["training"], *test] for name in _names(entry)}
    found = {path for name in named if isinstance(path := named_file(root, name, ""), Path)}
    return DataSet(
        root=root,
        layout="msd",
        regions=MSD_REGIONS,
        label_values=tuple(MSD_LABELS),
        cases=tuple(case for case in known if case.label),
        unlabelled=tuple(case for case in known if not case.label),
        findings=(
            *findings,
            *repeated,
            *count_findings(index, "numTraining", len(index["training"])),
            *(replace(finding, trained_on=False) for finding in count_findings(index, "numTest", len(test))),
            *undeclared(root, volumes(root), files_of(known) | found),
        ),
    )


def _check_names(index: Mapping[str, Any], path: Path) -> None:
    """Check the modalities, the labels and the lists of cases in dataset.json."""
    modality = index.get("modality")
    names = (
        tuple(str(modality[key]).lower() for key in sorted(modality, key=str))
        if isinstance(modality, dict)
        else modality
    )
    if names != tuple(name.lower() for name in MSD_MODALITIES):
        raise MisError(f"{path}: modality must be {_numbered(MSD_MODALITIES)}", got=modality)
    labels = index.get("labels")
    spelt = {str(value): _plain(name) for value, name in labels.items()} if isinstance(labels, dict) else labels
    if spelt != {str(value): _plain(name) for value, name in MSD_LABELS.items()}:
        raise MisError(
            f"{path}: labels must be {', '.join(f'{value} {name}' for value, name in MSD_LABELS.items())}", got=labels
        )
    if not isinstance(index.get("training"), list) or not index["training"]:
        raise MisError(f"{path}: training must list at least one case", got=index.get("training"))
    if not isinstance(index.get("test", []), list):
        raise MisError(f"{path}: test must be a list of images, empty where there are none", got=index["test"])


def _plain(name: object) -> str:
    """Return a label's name in one spelling: spellings may differ, the order of the labels may not."""
    return str(name).lower().replace("tumour", "tumor").replace("oedema", "edema").replace("-", " ")


def _numbered(names: tuple[str, ...]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(names))


def _names(entry: object) -> list[object]:
    """Return the names of files in an entry of dataset.json."""
    return [entry[key] for key in ("image", "label") if entry.get(key)] if isinstance(entry, dict) else [entry]


def _labelled(root: Path, entry: object, findings: list[Finding]) -> Case | None:
    """Return the case of an entry of `training`; None, with findings, where a file is missing."""
    image = _image(root, entry)
    assert isinstance(entry, dict)  # noqa: S101 - it has an image
    if not isinstance(entry.get("label", ""), str | None):
        raise MisError(f"{root / INDEX}: each entry of training must name its label", got=entry)
    name = case_name(image)
    found = named_file(root, image, name)
    label = (
        named_file(root, entry["label"], name)
        if entry.get("label")
        else Finding("missing-label", name, INDEX, "no label in its entry")
    )
    findings += [file for file in (found, label) if isinstance(file, Finding)]
    if not isinstance(found, Path) or not isinstance(label, Path):
        return None
    return Case(name, patient_of(name), (found,), label)


def _image(root: Path, entry: object) -> str:
    """Return the name of the image in an entry of `training`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
        raise MisError(f"{root / INDEX}: each entry of training must name an image and a label", got=entry)
    return str(entry["image"])


def _unlabelled(root: Path, entry: object, findings: list[Finding]) -> Case | None:
    """Return the case of an entry of `test`; None, with a finding, where its file is missing."""
    if not isinstance(entry, str):
        raise MisError(f"{root / INDEX}: each entry of test must be the name of an image", got=entry)
    name = case_name(entry)
    image = named_file(root, entry, name)
    if isinstance(image, Finding):
        findings.append(replace(image, trained_on=False))
        return None
    return Case(name, patient_of(name), (image,), None)
