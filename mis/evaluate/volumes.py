"""The volumes of an evaluated case, for a viewer: images, truth, prediction and where the two differ, as NIfTI."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mis.data.pictures.view import grey_levels
from mis.data.records.preprocess import filled
from mis.evaluate.cases import Prediction

MODALITIES = ("FLAIR", "T1gd")
"""The images that are written."""

TRUTH, PREDICTION, DIFFERENCE = "truth", "prediction", "difference"

MISSED, FALSE, OTHER = 1, 2, 3
"""The values of `difference`: tumour of the truth alone, of the prediction alone, and of both in other regions."""


def write_volumes(prediction: Prediction, modalities: Sequence[str], folder: Path) -> None:
    """Write a case in the box of its brain, each volume uint8 (x, y, z) with the affine of the box.

    `truth` and `prediction` count the regions of a voxel, which are nested: 1 is WT alone, 2 is TC as well, 3 is ET.

    Args:
        prediction: The case and what was predicted of it.
        modalities: Names of the image's channels.
        folder: The folder of the files, which is made.
    """
    folder.mkdir(parents=True)
    for name, volume in volumes_of(prediction, modalities).items():
        nib.save(nib.Nifti1Image(volume, prediction.affine), folder / f"{name}.nii.gz")


def volumes_of(prediction: Prediction, modalities: Sequence[str]) -> Mapping[str, NDArray[np.uint8]]:
    """Return the volumes of a case, uint8 (x, y, z), by their names."""
    brain = np.asarray(prediction.image.any(axis=-1))
    grey = filled(brain, grey_levels(prediction.image[brain]))
    truth, predicted = (masks.sum(axis=-1, dtype=np.uint8) for masks in (prediction.truth, prediction.predicted))
    difference = np.select(
        [(truth > 0) & (predicted == 0), (truth == 0) & (predicted > 0), truth != predicted], [MISSED, FALSE, OTHER], 0
    )
    return {
        **{name: np.ascontiguousarray(grey[..., list(modalities).index(name)]) for name in MODALITIES},
        TRUTH: truth,
        PREDICTION: predicted,
        DIFFERENCE: difference.astype(np.uint8),
    }
