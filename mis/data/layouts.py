"""From a folder as it was downloaded to a list of cases."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mis.errors import MisError

INDEX = "dataset.json"


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        id: Its name, unique in the data set.
        patient: Whose it is; all cases of a patient go to the same split.
        images: One 4-D file (x, y, z, modality), or a 3-D file for each modality.
        label: The 3-D file of the truth; None where there is none.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class DataSet:
    """What a folder holds.

    Attributes:
        root: The folder.
        modalities: Names of the channels, in order.
        label_values: Values that a label may have.
        regions: The label values that make up each region, e.g. `{"TC": (2, 3)}`.
        cases: The cases with a label.
        unlabelled: The cases without.
    """

    root: Path
    modalities: tuple[str, ...]
    label_values: tuple[int, ...]
    regions: Mapping[str, tuple[int, ...]]
    cases: tuple[Case, ...]
    unlabelled: tuple[Case, ...]


MSD_MODALITIES = ("FLAIR", "T1w", "T1gd", "T2w")
MSD_LABELS = {0: "background", 1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
MSD_REGIONS = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}


def read_msd(root: Path) -> DataSet:
    """Read the layout of the Medical Segmentation Decathlon's Task01_BrainTumour.

    Args:
        root: The folder that holds `dataset.json`, `imagesTr`, `labelsTr` and perhaps `imagesTs`.

    Raises:
        MisError: The folder or dataset.json is missing or not as the layout has it, a file that it
            names does not exist, or a case has no label or is named twice.
    """
    index = _read_index(root)
    _check_names(index, root / INDEX)
    cases = tuple(_labelled_case(root, entry) for entry in index["training"])
    unlabelled = tuple(_case(root, image, None) for image in index.get("test", ()))
    _check_unique(cases + unlabelled, root)
    return DataSet(
        root=root,
        modalities=MSD_MODALITIES,
        label_values=tuple(MSD_LABELS),
        regions=MSD_REGIONS,
        cases=cases,
        unlabelled=unlabelled,
    )


def _read_index(root: Path) -> dict[str, Any]:
    path = root / INDEX
    if not root.is_dir():
        raise MisError(
            "data.root must be a folder with a data set",
            got=root,
            do="make it with `dvc repro phantom`, or put or link your own there",
        )
    if not path.is_file():
        raise MisError(
            f"a data set in the layout of MSD must have {INDEX}",
            got=f"none in {root}",
            do="point data.root at the folder that holds it",
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MisError(f"{path} must be JSON: {error}", do="copy it again from the archive") from None
    if not isinstance(index, dict):
        raise MisError(f"{path} must hold one JSON object", got=type(index).__name__)
    return index


def _check_names(index: Mapping[str, Any], path: Path) -> None:
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
    """Return a label's name without the differences that do not matter: another order of labels does."""
    return str(name).lower().replace("tumour", "tumor").replace("oedema", "edema").replace("-", " ")


def _numbered(names: tuple[str, ...]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(names))


def _labelled_case(root: Path, entry: object) -> Case:
    if not isinstance(entry, dict) or not entry.get("image"):
        raise MisError(f"{root / INDEX}: each entry of training must name an image and a label", got=entry)
    if not entry.get("label"):
        raise MisError(
            f"{root / INDEX}: case {entry['image']} must have a label",
            got="none",
            do="add it or take the case out of training",
        )
    return _case(root, entry["image"], entry["label"])


def _case(root: Path, image: str, label: str | None) -> Case:
    image_path = _file_of(root, image, "image")
    name = image_path.name.removesuffix(".gz").removesuffix(".nii")
    return Case(
        id=name,
        patient=name,
        images=(image_path,),
        label=None if label is None else _file_of(root, label, f"label of {name}"),
    )


def _file_of(root: Path, name: object, what: str) -> Path:
    """Resolve a name of dataset.json, which starts at the data set's folder and stays in it."""
    path = root / str(name)
    if ".." in Path(str(name)).parts or Path(str(name)).is_absolute():
        raise MisError(f"{root / INDEX}: a path must stay in the data set", got=name)
    if not path.is_file():
        raise MisError(
            f"{root / INDEX}: the {what} must exist",
            got=path,
            do="copy the missing file or take the case out of dataset.json",
        )
    return path


def _check_unique(cases: tuple[Case, ...], root: Path) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise MisError(f"{root / INDEX}: a case must be named once", got=f"{case.id} twice")
        seen.add(case.id)
