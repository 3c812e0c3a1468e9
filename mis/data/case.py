"""What a data set consists of, whatever its layout on disk."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mis.data.check.findings import Finding

MODALITIES = ("FLAIR", "T1w", "T1gd", "T2w")
"""The channels of an image, in this order in every record."""

REGIONS = ("WT", "TC", "ET")
"""Whole tumour, tumour core, enhancing tumour: nested, each within the one before."""

WHOLE_TUMOR = REGIONS[0]


EXAMINATION = re.compile(r"(.+-\d{4,})-\d{3}")
"""A case's name that ends with the number of one of its patient's examinations."""


def patient_of(case: str) -> str:
    """Return whose case it is, by its name, whatever the layout.

    >>> patient_of("BraTS-GLI-00005-100"), patient_of("BRATS_001"), patient_of("BraTS2021_00001")
    ('BraTS-GLI-00005', 'BRATS_001', 'BraTS2021_00001')
    """
    match = EXAMINATION.fullmatch(case)
    return match.group(1) if match else case


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        id: Its name, unique in the data set.
        patient: Whose it is; all cases of a patient go to the same split.
        images: One 4-D file (x, y, z, modality), or a 3-D file for each modality, in the order of `MODALITIES`.
        label: The 3-D file of the truth; None where there is none.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of its files, the label last."""
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True)
class DataSet:
    """What a folder holds.

    Attributes:
        root: The folder.
        layout: The name of its layout, as `data.layout` has it.
        regions: The label values that make up each region, in the order of `REGIONS`, e.g. `{"TC": (2, 3)}`.
        label_values: Values that a label may have.
        cases: The cases with a label, all of whose files are there.
        unlabelled: The cases without.
        findings: What is wrong with the names of its files and with its index; a case that this is
            about and that cannot be read is neither in `cases` nor in `unlabelled`.
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
    """Return the files of some cases."""
    return {file for case in cases for file in case.files}
