"""What the check says in words: the rules, a finding's sentence, and how a command refuses a data set."""

from collections.abc import Sequence
from pathlib import Path

from mis.data.case import DataSet
from mis.data.check.findings import Finding
from mis.errors import MisError

RULES = {
    "outside-path": "a path in dataset.json must stay in the data set",
    "missing-file": "a file that is named must exist",
    "missing-label": "a case to train on must have a label",
    "missing-modality": "a case must have all four modalities",
    "extra-channel": "a case must have the channels of dataset.json and no other",
    "file-ending": "files should end as dataset.json says",
    "outside-brain": "a label should lie in the brain",
    "unlabelled": "a data set to train on should have labels",
    "missing-image": "a label must belong to an image",
    "duplicate-name": "a case must be named once",
    "case-name": "a case must have a name that a file can have",
    "case-count": "dataset.json must count the cases that are there",
    "not-understood": "a data set must be in one of the layouts",
    "same-file": "a file must be of one case",
    "outside-link": "the files of a data set should lie in its folder",
    "undeclared-file": "a file should be part of a case",
    "misnamed-label": "a label's file should have its case's name",
    "unreadable": "a file must be complete NIfTI",
    "axes": "an image must have the axes of its layout",
    "modalities": "a 4-D image must have four modalities",
    "shape": "the files of a case must have one shape",
    "affine": "the files of a case must lie in the same place",
    "affine-rounding": "the files of a case should have the same affine to the last digit",
    "voxel-size": "voxels must be of 0.2 to 8 mm, and a volume at most 500 mm long",
    "no-orientation": "a file should say how its axes lie",
    "spacing": "the voxels must have the size that data.spacing_mm says",
    "not-finite": "voxels must be finite",
    "label-values": "a label must have the values of its layout alone",
    "no-air": "images should be skull-stripped, 0 outside the brain: they are standardised over what is not 0",
    "empty-label": "a label should mark a tumour",
    "empty-modality": "a modality must not be zero everywhere",
    "constant-modality": "a modality must not be constant over the brain",
    "same-modality": "two modalities of a case must not be the same image",
    "same-label": "no label may be there twice",
    "same-image": "no image may be there twice: it would leak from training to test",
}
"""What each rule says, by the name that `Finding.rule` has."""


def sentence(finding: Finding, *, with_case: bool = True) -> str:
    """Return a finding as a sentence: the place, the rule and the value.

    Args:
        finding: The finding.
        with_case: Whether the place names the case, as a file's path may not; without it the file alone is named.

    >>> sentence(Finding("duplicate-name", "BRATS_002", "dataset.json", "twice"))
    'BRATS_002 (dataset.json): a case must be named once, got twice'
    >>> sentence(Finding("empty-label", "BRATS_002", "labelsTr/BRATS_002.nii.gz", "background alone"))
    'labelsTr/BRATS_002.nii.gz: a label should mark a tumour, got background alone'
    """
    place = finding.file
    if with_case and finding.case not in finding.file:
        place = f"{finding.case} ({finding.file})" if finding.file else finding.case
    return f"{place + ': ' if place else ''}{RULES[finding.rule]}, got {finding.value}"


def check_command(data: DataSet) -> str:
    """Return the command that lists every finding of a data set."""
    return f"`python -m mis.data check {data.root}`"


def refused_for_errors(data: DataSet, wrong: Sequence[Finding], page: Path | None = None) -> MisError:
    """Return the error of a command that refuses a data set: its first error, and where all of them are listed.

    Args:
        data: The data set.
        wrong: Its errors, at least one.
        page: The page that lists them; None where none was written.
    """
    more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
    do = f"{page or check_command(data)} lists all; mend them, or set data.skip_bad_cases"
    return MisError(f"{data.root}: {sentence(wrong[0])}{more}", do=do)


def refused_for_too_few_patients(data: DataSet, needed: int, patients: int, page: Path | None = None) -> MisError:
    """Return the error of a command that has too few patients left for a split once the cases with errors are out."""
    rule = f"{data.root}: a split needs {needed} patients without errors"
    return MisError(rule, got=patients, do=f"{page or check_command(data)} lists what is wrong with the others")
