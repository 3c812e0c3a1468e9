"""The layouts of the BraTS challenges: a folder for each case, a 3-D file for each modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mis.data.case import Case, DataSet, files_of, patient_of
from mis.data.check.findings import Finding
from mis.data.layouts.files import stem, volumes
from mis.data.layouts.index import undeclared, without_repeated
from mis.errors import MisError


@dataclass(frozen=True)
class Convention:
    """How the files of a challenge are named and its labels meant.

    Attributes:
        layout: As `data.layout` has it.
        separator: Between the case's name and what the file is.
        suffixes: What the files of FLAIR, T1w, T1gd and T2w are called.
        regions: The label values of WT, TC and ET.
    """

    layout: str
    separator: str
    suffixes: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]

    def part(self, path: Path) -> tuple[str, str] | None:
        """Return a file's case and what it is of it; None for one that is not named so."""
        case, separator, what = stem(path).rpartition(self.separator)
        return (case, what.lower()) if separator and what.lower() in (*self.suffixes, "seg") else None


BRATS_2021 = Convention(
    layout="brats2021",
    separator="_",
    suffixes=("flair", "t1", "t1ce", "t2"),
    # 1 necrotic or non-enhancing core, 2 edema, 4 enhancing
    regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
)
"""BraTS 2018 to 2021."""

BRATS_2023 = Convention(
    layout="brats2023",
    separator="-",
    suffixes=("t2f", "t1n", "t1c", "t2w"),
    # 1 non-enhancing core, 2 surrounding FLAIR hyperintensity, 3 enhancing
    regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
)
"""BraTS 2023 and later."""


def has_files(root: Path, convention: Convention) -> bool:
    """Tell whether any file is named as one of the challenge's modalities."""
    return any((part := convention.part(path)) and part[1] in convention.suffixes for path in volumes(root))


def read_brats(root: Path, convention: Convention) -> DataSet:
    """Read the cases of a challenge, in whatever folders below `root` (2018 and 2019 have HGG and LGG).

    A case without a label is one that is not trained on where its whole folder has none, as a validation set.

    Raises:
        MisError: There is no such case.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    files = list(volumes(root))
    for path in files:
        if part := convention.part(path):
            found.setdefault(part[0], {}).setdefault(part[1], []).append(path)
    labelled = _labelled_sets(found)
    misnamed = {path: label for path, label in _misnamed_labels(files, convention).items() if path.parent in labelled}
    if not found:
        names = ", ".join(f"<case>{convention.separator}{what}.nii.gz" for what in convention.suffixes)
        raise MisError(f"a data set in the layout {convention.layout} must have {names}", got=f"none below {root}")
    findings: list[Finding] = []
    read = partial(_case, root=root, convention=convention, misnamed=misnamed, labelled=labelled, findings=findings)
    cases = [case for name, parts in found.items() if (case := read(name, parts))]
    known, repeated = without_repeated(cases)
    if not any(case.label for case in known):
        findings.append(Finding("unlabelled", "", "", f"{len(known)} cases without one"))
    seen = {file for parts in found.values() for own in parts.values() for file in own}
    return DataSet(
        root=root,
        layout=convention.layout,
        regions=convention.regions,
        label_values=(0, *sorted(convention.regions["WT"])),
        cases=tuple(case for case in known if case.label),
        unlabelled=tuple(case for case in known if not case.label),
        findings=(*findings, *repeated, *undeclared(root, files, files_of(known) | seen)),
    )


def _case(
    name: str,
    parts: Mapping[str, Sequence[Path]],
    *,
    root: Path,
    convention: Convention,
    misnamed: Mapping[Path, Path],
    labelled: set[Path],
    findings: list[Finding],
) -> Case | None:
    def found(rule: str, file: Path, value: str) -> None:
        findings.append(Finding(rule, name, file.relative_to(root).as_posix(), value, trained_on))

    any_file = next(file for files in parts.values() for file in files)
    label = parts["seg"][0] if "seg" in parts else misnamed.get(any_file.parent)
    trained_on = label is not None or _set_of(any_file, name) in labelled
    for files in parts.values():
        folders = {file.parent for file in files}
        if len(folders) > 1:
            places = ", ".join(sorted(folder.relative_to(root).as_posix() for folder in folders))
            found("duplicate-name", files[-1], f"in {len(folders)} folders: {places}")
        elif len(files) > 1:
            found("undeclared-file", files[-1], f"one beside {files[0].name}, which is used")
    missing = [what for what in convention.suffixes if what not in parts]
    if label and "seg" not in parts:
        found("misnamed-label", label, label.name)
    if missing == list(convention.suffixes):
        found("missing-image", any_file, "a label alone")
        return None
    if missing:
        found("missing-modality", any_file.parent, f"no {', '.join(missing)}")
        return None
    if label is None and trained_on:
        found("missing-label", any_file.parent, f"no {name}{convention.separator}seg, which others beside it have")
        return None
    return Case(name, patient_of(name), tuple(parts[what][0] for what in convention.suffixes), label)


def _set_of(file: Path, case: str) -> Path:
    """Return the folder in which the cases of a set stand: the one above a case's own folder."""
    return file.parent.parent if file.parent.name == case else file.parent


def _labelled_sets(found: Mapping[str, Mapping[str, Sequence[Path]]]) -> set[Path]:
    """Return the folders in which a case with a label stands: none of the others there should lack it."""
    return {_set_of(path, name) for name, parts in found.items() for path in parts.get("seg", ())}


def _misnamed_labels(files: Sequence[Path], convention: Convention) -> dict[Path, Path]:
    """Return by folder the one file that calls itself a segmentation, where all others there are of one case.

    BraTS 2020's training case 355 has `W39_1998.09.19_Segm.nii`.
    """
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    found = {}
    for folder, own in by_folder.items():
        parts = [convention.part(path) for path in own]
        others = [path for path, part in zip(own, parts, strict=True) if part is None]
        labels = [path for path in others if "seg" in stem(path).lower()]
        if len(labels) == 1 and len({part[0] for part in parts if part}) == 1:
            found[folder] = labels[0]
    return found
