"""What is predicted: the cases of a folder, one file, or four files that are named by their modalities."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib

from mis.data.case import MODALITIES, Case, DataSet, patient_of
from mis.data.layouts.brats import BRATS_2021, BRATS_2023
from mis.data.layouts.files import is_volume, stem, volumes
from mis.data.layouts.index import INDEX
from mis.data.layouts.msd import MSD_REGIONS
from mis.data.layouts.recognise import read_data
from mis.data.volumes import UNREADABLE
from mis.errors import MisError

LABEL_VALUES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "msd": MSD_REGIONS,
    "brats2021": BRATS_2021.regions,
    "brats2023": BRATS_2023.regions,
}
"""The label values of each region, by the challenge that takes them."""

IN_BRATS, IN_MSD = "brats2023", "msd"


def read_input(path: Path, layout: str = "auto") -> DataSet:
    """Return the cases of a path, none with a label: a case is predicted whatever its label is.

    Args:
        path: A data set's folder, the folder of a single case, or a 4-D file with the modalities as MSD has them, or a
            folder with such files, as `imagesTs` is.
        layout: As `data.layout`, for a folder.

    Raises:
        MisError: It is none of these.
    """
    if path.is_file():
        if not is_volume(path):
            raise MisError("an image must be a NIfTI file (.nii.gz or .nii)", got=path)
        return _data_set(path.parent, IN_MSD, _of_file(path))
    if not path.is_dir():
        raise MisError("INPUT must be a folder with cases, or a 4-D NIfTI file", got=path)
    if not any(volumes(path)):
        raise MisError("INPUT must be a folder with NIfTI files (.nii.gz or .nii)", got=f"none in {path}")
    if layout == "auto" and not (path / INDEX).is_file():
        # Label maps of an earlier call may lie in a folder below; of two files of one stem the first counts.
        files = {stem(file): file for file in reversed(list(volumes(path))) if file.parent == path}
        if any(map(_has_modalities, files.values())):
            return _data_set(path, IN_MSD, *(_of_file(file) for _, file in sorted(files.items())))
    data = read_data(path, layout, with_labels=False)
    return replace(data, unlabelled=tuple(sorted(data.unlabelled, key=lambda case: case.id)))


def four_files(files: Mapping[str, Path], name: str) -> DataSet:
    """Return the case of four files.

    Args:
        files: The 3-D file of each modality, by its name in `MODALITIES`.
        name: The case's name.

    Raises:
        MisError: A file is missing.
    """
    for modality in MODALITIES:
        if not files[modality].is_file():
            raise MisError(f"the file of {modality} must exist", got=files[modality])
    case = Case(name, patient_of(name), tuple(files[modality] for modality in MODALITIES), None)
    return _data_set(files[MODALITIES[0]].parent, IN_BRATS, case)


def _of_file(path: Path) -> Case:
    return Case(stem(path), patient_of(stem(path)), (path,), None)


def _has_modalities(path: Path) -> bool:
    """Return whether a file is 4-D, with a volume for each modality; one that cannot be read is not."""
    try:
        shape: tuple[int, ...] = nib.load(path).shape
    except UNREADABLE:
        return False
    return len(shape) == 4 and shape[3] == len(MODALITIES)


def _data_set(root: Path, layout: str, *cases: Case) -> DataSet:
    regions = LABEL_VALUES[layout]
    return DataSet(root, layout, regions, (0, *sorted(regions["WT"])), (), cases)
