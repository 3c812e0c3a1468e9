"""The layouts in which a phantom is written: files, types, values of the label, dataset.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mis.data.phantom.grid import Array, Labels
from mis.data.phantom.sample import MODALITIES
from mis.params.data import Layout, PhantomParams

Volume = NDArray[np.float32] | NDArray[np.int16] | NDArray[np.uint8]
Volumes = dict[str, Volume]
"""The volumes that are written of a case, by their paths in the data set's folder."""

PHANTOM_MARK = "Synthetic phantom"
"""How README.md, and the description in dataset.json, begins: this folder may be made again."""
DESCRIPTION = f"{PHANTOM_MARK}: drawn by a program, no patient data, no measure of any method's accuracy"

MSD_LABELS = ("background", "edema", "non-enhancing tumor", "enhancing tumour")
UNLABELLED = "ValidationData"
"""The folder of a BraTS data set's cases without a label."""
NNUNET_CHANNELS = {"T1": "T1w", "T1ce": "t1gd", "T2": "T2w", "Flair": "FLAIR"}
"""The channels in the order of nnU-Net's own conversion (Dataset137_BraTS21), each with its name in `MODALITIES`."""


@dataclass(frozen=True)
class Format:
    """How a data set of one layout is written.

    Attributes:
        volumes: Returns the files of a case from its number, its image (x, y, z, modality) and its label (x, y, z),
            None where it has no label.
        folders: The folders that there are even if they are empty.
        index: Returns the content of dataset.json; None where the layout has no such file.
    """

    volumes: Callable[[int, Array, Labels | None], Volumes]
    folders: tuple[str, ...] = ()
    index: Callable[[PhantomParams], dict[str, Any]] | None = None


def readme(params: PhantomParams) -> str:
    """Return the text of README.md, which marks the folder in every layout."""
    return (
        f"{DESCRIPTION}.\n\n"
        f"Layout {params.layout}, seed {params.seed}; {params.cases} cases with a label, {params.unlabelled} without.\n"
        "While this file begins as it does, making a phantom here replaces everything in this folder.\n"
    )


def _msd_name(number: int) -> str:
    """Return the name of a case; as in the real data set, those without a label go on counting."""
    return f"BRATS_{number:03d}"


def _set(label: Labels | None) -> str:
    """Return the end of the name of the folder that a case's image is in: Tr for training, Ts for the test."""
    return "Ts" if label is None else "Tr"


def _whole(image: Array, modality: str) -> NDArray[np.int16]:
    """Return a modality, int16 (x, y, z); the intensities of a phantom are whole and far below what int16 holds."""
    return image[..., MODALITIES.index(modality)].astype(np.int16)


# ---- MSD Task01_BrainTumour ----


def _msd_volumes(number: int, image: Array, label: Labels | None) -> Volumes:
    file = f"{_msd_name(number)}.nii.gz"
    volumes: Volumes = {f"images{_set(label)}/{file}": image}
    return volumes if label is None else volumes | {f"labelsTr/{file}": label}


def _msd_index(params: PhantomParams) -> dict[str, Any]:
    """Return the content of dataset.json, with the keys of MSD Task01_BrainTumour in their order."""
    files = [f"{_msd_name(1 + index)}.nii.gz" for index in range(params.cases + params.unlabelled)]
    return {
        "name": "BRATS",
        "description": DESCRIPTION,
        "reference": "mis.data.phantom",
        "licence": "Apache-2.0",
        "release": f"seed {params.seed}",
        "tensorImageSize": "4D",
        "modality": {str(index): name for index, name in enumerate(MODALITIES)},
        "labels": {str(value): name for value, name in enumerate(MSD_LABELS)},
        "numTraining": params.cases,
        "numTest": params.unlabelled,
        "training": [{"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"} for file in files[: params.cases]],
        "test": [f"./imagesTs/{file}" for file in files[params.cases :]],
    }


# ---- BraTS ----


def _brats2021_volumes(number: int, image: Array, label: Labels | None) -> Volumes:
    """Return the files of BraTS 2021, whose labels are 1 core, 2 edema, 4 enhancing."""
    suffixes = {"flair": "FLAIR", "t1": "T1w", "t1ce": "t1gd", "t2": "T2w"}
    return _brats_volumes(image, label, f"BraTS2021_{number:05d}", "_", suffixes=suffixes, values=(0, 2, 1, 4))


def _brats2023_volumes(number: int, image: Array, label: Labels | None) -> Volumes:
    """Return the files of BraTS 2023 (GLI), whose labels are 1 core, 2 edema, 3 enhancing."""
    suffixes = {"t2f": "FLAIR", "t1n": "T1w", "t1c": "t1gd", "t2w": "T2w"}
    # The patient's number, and that of the examination, counted from 000.
    return _brats_volumes(image, label, f"BraTS-GLI-{number:05d}-000", "-", suffixes=suffixes, values=(0, 2, 1, 3))


def _brats_volumes(
    image: Array,
    label: Labels | None,
    case: str,
    separator: str,
    *,
    suffixes: Mapping[str, str],
    values: tuple[int, int, int, int],
) -> Volumes:
    """Return a folder with a file for each modality, and one for the label.

    Args:
        image: (x, y, z, modality).
        label: (x, y, z); None where the case has none.
        case: The name of the case.
        separator: What stands between the case's name and the suffix of a file.
        suffixes: The suffix of each file's name, and the modality that it holds.
        values: The label values that are written for 0 background, 1 edema, 2 core, 3 enhancing.
    """
    # As in the challenges, cases without a label are in a folder of their own.
    start = f"{'' if label is not None else f'{UNLABELLED}/'}{case}/{case}{separator}"
    volumes: Volumes = {f"{start}{suffix}.nii.gz": _whole(image, modality) for suffix, modality in suffixes.items()}
    return volumes if label is None else volumes | {f"{start}seg.nii.gz": np.array(values, np.int16)[label]}


# ---- nnU-Net ----


def _nnunet_volumes(number: int, image: Array, label: Labels | None) -> Volumes:
    """Return the files of nnU-Net v2's raw data, whose labels of BraTS are those of MSD."""
    case = _msd_name(number)
    volumes: Volumes = {
        f"images{_set(label)}/{case}_{channel:04d}.nii.gz": _whole(image, modality)
        for channel, modality in enumerate(NNUNET_CHANNELS.values())
    }
    return volumes if label is None else volumes | {f"labelsTr/{case}.nii.gz": label}


def _nnunet_index(params: PhantomParams) -> dict[str, Any]:
    """Return the content of dataset.json, with the labels as regions, for training by regions."""
    return {
        "channel_names": {str(channel): name for channel, name in enumerate(NNUNET_CHANNELS)},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
        # Regions are painted one over the other: the whole tumour as 1, the core as 2, the enhancing tumour as 3.
        "regions_class_order": [1, 2, 3],
        "numTraining": params.cases,
        "file_ending": ".nii.gz",
        "name": "BRATS",
        "description": DESCRIPTION,
        "reference": "mis.data.phantom",
        "licence": "Apache-2.0",
        "release": f"seed {params.seed}",
    }


DECATHLON_FOLDERS = ("imagesTr", "labelsTr", "imagesTs")
FORMATS: dict[Layout, Format] = {
    "msd": Format(_msd_volumes, DECATHLON_FOLDERS, _msd_index),
    "brats2021": Format(_brats2021_volumes),
    "brats2023": Format(_brats2023_volumes),
    "nnunet": Format(_nnunet_volumes, DECATHLON_FOLDERS, _nnunet_index),
}
"""Every layout that `phantom.layout` may name."""
