"""A case and a data set, whatever their layout on disk."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mis.data.check.findings import Finding

MODALITIES = ("FLAIR", "T1w", "T1gd", "T2w")
"""The channels of an image, in this order in every record: T2-FLAIR, T1, T1 with gadolinium, T2."""

REGIONS = ("WT", "TC", "ET")
"""Whole tumour, tumour core, enhancing tumour: nested, each within the one before."""

WHOLE_TUMOR = REGIONS[0]

EXAMINATION = re.compile(r"(.+-\d{4,})-\d{3}")
"""A case's name that ends with the number of one of its patient's examinations."""


def patient_of(case: str) -> str:
    """Return the patient of a case, by the case's name: without the number of the examination, where it has one.

    >>> patient_of("BraTS-GLI-00005-100"), patient_of("BRATS_001"), patient_of("BraTS2021_00001")
    ('BraTS-GLI-00005', 'BRATS_001', 'BraTS2021_00001')
    """
    match = EXAMINATION.fullmatch(case)
    return match.group(1) if match else case


@dataclass(frozen=True)
class Case:
    """One examination of a patient.

    Attributes:
        id: The case's name, unique in the data set.
        patient: The patient's name; all cases of a patient go to the same part of the split.
        images: One 4-D file (x, y, z, modality), or a 3-D file for each modality, in the order of `MODALITIES`.
        label: The 3-D file of the true segmentation; None where the case has none.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, the label last."""
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True)
class DataSet:
    """The cases of a folder.

    Attributes:
        root: The folder.
        layout: The name of its layout, a value of `data.layout`.
        regions: The label values that make up each region, in the order of `REGIONS`, e.g. `{"TC": (2, 3)}`.
        label_values: The values that a label may have.
        cases: The cases with a label, all of whose files exist.
        unlabelled: The cases without a label.
        findings: What is wrong with the names of its files and with its dataset.json; a case with such an error
            that cannot be read is neither in `cases` nor in `unlabelled`.
    """

    root: Path
    layout: str
    regions: Mapping[str, tuple[int, ...]]
    label_values: tuple[int, ...]
    cases: tuple[Case, ...]
    unlabelled: tuple[Case, ...]
    findings: tuple[Finding, ...] = field(default=())

    def name(self, path: Path) -> str:
        """Return a file's path within the data set."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def files_of(cases: Sequence[Case]) -> set[Path]:
    """Return all files of some cases."""
    return {file for case in cases for file in case.files}
