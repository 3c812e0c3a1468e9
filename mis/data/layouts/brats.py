"""The layouts of the BraTS challenges: a folder for each case, a 3-D file for each modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mis.data.case import Case, DataSet, files_of, patient_of
from mis.data.check.findings import Finding
from mis.data.layouts.files import stem, volumes
from mis.data.layouts.index import undeclared
from mis.errors import MisError

LABEL = "seg"
"""The kind of a label's file."""

FilesOfCases = Mapping[str, Mapping[str, Sequence[Path]]]
"""The files of each case by their kind."""


@dataclass(frozen=True)
class Convention:
    """How the files of a challenge are named, and what its label values mean.

    Attributes:
        layout: The name of the layout, a value of `data.layout`.
        separator: What stands between the case's name and the kind of the file.
        suffixes: The kinds of the files of FLAIR, T1w, T1gd and T2w.
        regions: The label values of WT, TC and ET.
    """

    layout: str
    separator: str
    suffixes: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]

    def parse(self, path: Path) -> tuple[str, str] | None:
        """Return the case and the kind of a file, `seg` for a label; None where it is not named so."""
        case, separator, kind = stem(path).rpartition(self.separator)
        return (case, kind.lower()) if separator and kind.lower() in (*self.suffixes, LABEL) else None


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
    """Return whether any file is named as one of the challenge's modalities."""
    return any((parsed := convention.parse(path)) and parsed[1] in convention.suffixes for path in volumes(root))


def read_brats(root: Path, convention: Convention, *, with_labels: bool = True) -> DataSet:
    """Read the cases of a challenge, in whatever folders below `root` (2018 and 2019 have HGG and LGG).

    A case without a label is one that is not trained on where its whole folder has none, as a validation set.

    Args:
        root: The folder of the data set.
        convention: How its files are named.
        with_labels: Whether labels are wanted; else every case is one without.

    Raises:
        MisError: There is no such case.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    files = list(volumes(root))
    for path in files:
        if (parsed := convention.parse(path)) and (with_labels or parsed[1] != LABEL):
            found.setdefault(parsed[0], {}).setdefault(parsed[1], []).append(path)
    if not found:
        names = ", ".join(f"<case>{convention.separator}{kind}.nii.gz" for kind in convention.suffixes)
        raise MisError(f"a data set in the layout {convention.layout} must have {names}", got=f"none below {root}")
    labelled = _labelled_sets(found)
    misnamed = {path: label for path, label in _misnamed_labels(files, convention).items() if path.parent in labelled}
    findings: list[Finding] = []
    read = partial(_case, root=root, convention=convention, misnamed=misnamed, labelled=labelled, findings=findings)
    cases = [case for name, kinds in found.items() if (case := read(name, kinds))]
    if not any(case.label for case in cases):
        findings.append(Finding("unlabelled", "", "", f"{len(cases)} cases without one"))
    recognised = {path for kinds in found.values() for paths in kinds.values() for path in paths}
    return DataSet(
        root=root,
        layout=convention.layout,
        regions=convention.regions,
        label_values=(0, *sorted(convention.regions["WT"])),
        cases=tuple(case for case in cases if case.label),
        unlabelled=tuple(case for case in cases if not case.label),
        findings=(*findings, *undeclared(root, files, files_of(cases) | recognised)),
    )


def _case(
    name: str,
    kinds: Mapping[str, Sequence[Path]],
    *,
    root: Path,
    convention: Convention,
    misnamed: Mapping[Path, Path],
    labelled: set[Path],
    findings: list[Finding],
) -> Case | None:
    """Return a case, or None where it cannot be read; what is wrong with it is added to `findings`.

    Args:
        name: The case's name.
        kinds: Its files by their kind.
        root: The folder of the data set.
        convention: How its files are named.
        misnamed: The label of another name, by the folder that it is in.
        labelled: The folders of sets whose cases have labels.
        findings: Where findings go.
    """

    def found(rule: str, file: Path, value: str) -> None:
        findings.append(Finding(rule, name, file.relative_to(root).as_posix(), value, trained_on))

    any_file = next(file for files in kinds.values() for file in files)
    label = kinds[LABEL][0] if LABEL in kinds else misnamed.get(any_file.parent)
    trained_on = label is not None or _set_of(any_file, name) in labelled
    for files in kinds.values():
        folders = {file.parent for file in files}
        if len(folders) > 1:
            places = ", ".join(sorted(folder.relative_to(root).as_posix() for folder in folders))
            found("duplicate-name", files[-1], f"in {len(folders)} folders: {places}")
        elif len(files) > 1:
            found("undeclared-file", files[-1], f"one beside {files[0].name}, which is used")
    missing = [kind for kind in convention.suffixes if kind not in kinds]
    if label and LABEL not in kinds:
        found("misnamed-label", label, label.name)
    if missing == list(convention.suffixes):
        found("missing-image", any_file, "a label alone")
        return None
    if missing:
        found("missing-modality", any_file.parent, f"no {', '.join(missing)}")
        return None
    if label is None and trained_on:
        found("missing-label", any_file.parent, f"no {name}{convention.separator}{LABEL}, which others beside it have")
        return None
    return Case(name, patient_of(name), tuple(kinds[kind][0] for kind in convention.suffixes), label)


def _set_of(file: Path, case: str) -> Path:
    """Return the folder that holds the cases of a set: the one above the folder of a case."""
    return file.parent.parent if file.parent.name == case else file.parent


def _labelled_sets(found: FilesOfCases) -> set[Path]:
    """Return the folders of sets in which a case has a label: no other case there should lack it."""
    return {_set_of(path, name) for name, kinds in found.items() for path in kinds.get(LABEL, ())}


def _misnamed_labels(files: Sequence[Path], convention: Convention) -> dict[Path, Path]:
    """Return the label under another name, by its folder: the one file there that calls itself a segmentation.

    All other files of the folder must be of one case.

    BraTS 2020's training case 355 has `W39_1998.09.19_Segm.nii`.
    """
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    found = {}
    for folder, paths in by_folder.items():
        parsed = [convention.parse(path) for path in paths]
        others = [path for path, case_and_kind in zip(paths, parsed, strict=True) if case_and_kind is None]
        labels = [path for path in others if LABEL in stem(path).lower()]
        if len(labels) == 1 and len({case_and_kind[0] for case_and_kind in parsed if case_and_kind}) == 1:
            found[folder] = labels[0]
    return found
