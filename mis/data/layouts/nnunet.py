"""The raw layout of nnU-Net v2: a 3-D file for each channel, dataset.json with their names and the labels'."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mis.data.case import MODALITIES, REGIONS, Case, DataSet, files_of, patient_of
from mis.data.check.findings import Finding
from mis.data.layouts.files import find, stem, volumes
from mis.data.layouts.index import INDEX, count_findings, named_file, read_index, undeclared, without_repeated
from mis.errors import MisError

CHANNELS = {
    "FLAIR": {"flair", "t2flair", "t2f", "fluidattenuatedinversionrecovery"},
    "T1w": {"t1", "t1w", "t1n", "t1native"},
    "T1gd": {"t1gd", "t1ce", "t1c", "t1contrast", "t1gadolinium", "t1post"},
    "T2w": {"t2", "t2w"},
}
"""The names that each modality may have, in the spelling of `_plain`."""

WHOLE, CORE, ENHANCING = (
    {"wholetumor", "wt", "tumor"},
    {"tumorcore", "tc", "core"},
    {"enhancingtumor", "enhancing", "et", "activetumor", "at"},
)
EDEMA = {
    "edema",
    "ed",
    "peritumoraledema",
    "snfh",
    "surroundingflairhyperintensity",
    "surroundingnonenhancingflairhyperintensity",
}
NOT_ENHANCING = {"ncr", "net", "netc", "ncrnet", "necrosis", "necrotic", "necrotictumorcore"} | {
    f"nonenhancing{what}" for what in ("", "tumor", "core", "tumorcore")
}
NUMBERED = re.compile(r"(.+)_(\d{4})$")
"""An image's name without suffix: the case's name and the channel's number."""

REQUIRED = ("channel_names", "labels", "numTraining", "file_ending")


def read_nnunet(root: Path, *, with_labels: bool = True) -> DataSet:
    """Read `dataset.json`, `imagesTr`, `labelsTr` and perhaps `imagesTs`, or what its key `dataset` names.

    Args:
        root: The folder of the data set.
        with_labels: Whether labels are wanted; else every case is one without.

    Raises:
        MisError: dataset.json lacks a key, its channels are not the four modalities, or its labels are no
            tumour's regions.
    """
    index = read_index(root)
    path = root / INDEX
    for key in REQUIRED:
        if key not in index:
            raise MisError(f"{path} must have {key}", got=f"only {', '.join(index)}")
    if index["file_ending"] not in (".nii.gz", ".nii"):
        raise MisError(f"{path}: file_ending must be .nii.gz or .nii", got=index["file_ending"])
    order, regions, values = _channel_order(index, path), _regions(index, path), _label_values(index, path)
    findings: list[Finding] = []
    if "dataset" in index:
        if not isinstance(index["dataset"], dict):
            raise MisError(f"{path}: dataset must map names to images and a label", got=index["dataset"])
        cases = _named_cases(root, index["dataset"], order, findings, with_labels=with_labels)
        number = len(index["dataset"])
    else:
        cases, number = _cases(root, "imagesTr", order, findings, with_labels=with_labels), _count(root, "imagesTr")
    unlabelled = _cases(root, "imagesTs", order, findings, with_labels=False)
    if "dataset" not in index and with_labels:
        findings += _labels_alone(root, cases, findings)
    files = list(volumes(root))
    findings += _other_endings(root, files, index["file_ending"])
    known, repeated = without_repeated([*cases, *unlabelled])
    broken = {finding.case for finding in findings}
    used = files_of([*cases, *unlabelled]) | {path for path in files if stem(path) in broken or _id_of(path) in broken}
    return DataSet(
        root=root,
        layout="nnunet",
        regions=regions,
        label_values=values,
        cases=tuple(case for case in known if case.label),
        unlabelled=tuple(case for case in known if not case.label),
        findings=(
            *findings,
            *repeated,
            *count_findings(index, "numTraining", number),
            *undeclared(root, files, used | set(volumes(root / "labelsTs"))),
        ),
    )


def _labels_alone(root: Path, cases: Sequence[Case], findings: Sequence[Finding]) -> list[Finding]:
    """Return a finding for each label without an image, but for those of cases that have a finding already."""
    known = {stem(case.label) for case in cases if case.label} | {finding.case for finding in findings}
    alone: dict[str, Path] = {}
    for label in volumes(root / "labelsTr"):
        if stem(label) not in known:
            alone.setdefault(stem(label), label)
    return [
        Finding("missing-image", case, label.relative_to(root).as_posix(), "a label alone")
        for case, label in alone.items()
    ]


def _other_endings(root: Path, files: Sequence[Path], ending: str) -> list[Finding]:
    """Return a finding for each file that does not end as dataset.json says."""
    return [
        Finding("file-ending", _id_of(path) or stem(path), path.relative_to(root).as_posix(), f"not {ending}")
        for path in files
        if path.name != stem(path) + ending
    ]


def _plain(name: object) -> str:
    """Return a name of a channel or a label in one spelling: small letters, no spaces or punctuation."""
    return re.sub(r"[\s_\-./()]+", "", str(name).lower().replace("tumour", "tumor").replace("oedema", "edema"))


def _channel_order(index: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    """Return the number of the channel that each of `MODALITIES` is."""
    names = index["channel_names"]
    if not isinstance(names, dict) or sorted(names) != [str(number) for number in range(len(names))]:
        raise MisError(f"{path}: channel_names must have the keys 0, 1, 2, 3", got=names)
    plain = {number: _plain(name) for number, name in names.items()}
    order = [[int(number) for number, name in plain.items() if name in CHANNELS[modality]] for modality in MODALITIES]
    if len(plain) != len(MODALITIES) or any(len(numbers) != 1 for numbers in order):
        known = "; ".join(f"{modality} ({', '.join(sorted(CHANNELS[modality]))})" for modality in MODALITIES)
        raise MisError(f"{path}: channel_names must be the four modalities, each once: {known}", got=names)
    return tuple(number for (number,) in order)


def _values(value: object) -> tuple[int, ...]:
    """Return the label values of an entry of `labels`, which is a number or a list of numbers."""
    values = value if isinstance(value, list) else [value]
    if not all(type(number) is int for number in values):
        raise ValueError(value)
    return tuple(values)


def _label_values(index: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    """Return all label values, which count from 0 without a gap, as nnU-Net wants them."""
    values = sorted({number for value in index["labels"].values() for number in _values(value)} | {0})
    if values != list(range(len(values))):
        raise MisError(f"{path}: labels must count from 0 without a gap", got=values)
    return tuple(values)


def _regions(index: Mapping[str, Any], path: Path) -> dict[str, tuple[int, ...]]:
    """Return the label values of WT, TC and ET, from labels that are these regions or the parts of them."""
    labels = index["labels"]
    try:
        named = {_plain(name): _values(value) for name, value in labels.items()}
    except (AttributeError, TypeError, ValueError):
        raise MisError(f"{path}: labels must map names to whole numbers or lists of them", got=labels) from None

    def values_of(names: set[str]) -> tuple[int, ...]:
        return next((value for name, value in named.items() if name in names), ())

    enhancing, edema, inner = values_of(ENHANCING), values_of(EDEMA), values_of(NOT_ENHANCING)
    if values_of({"background"}) not in ((), (0,)):
        raise MisError(f"{path}: the label background must be 0", got=labels)
    core, whole = values_of(CORE) or inner + enhancing, values_of(WHOLE) or edema + inner + enhancing
    parts_known = (values_of(WHOLE) and values_of(CORE)) or (edema and inner)
    if not enhancing or not parts_known or not set(enhancing) <= set(core) <= set(whole):
        raise MisError(
            f"{path}: labels must be the regions whole tumor, tumor core and enhancing tumor, each with its values, "
            "or edema, non-enhancing tumor and enhancing tumor",
            got=labels,
        )
    if other := [name for name, value in labels.items() if set(_values(value)) - {0, *whole}]:
        raise MisError(
            f"{path}: each label but background must be a part of the whole tumor",
            got=", ".join(other),
            do="take cases with other labels out of the data set, or give them the value of a part or of background",
        )
    return dict(zip(REGIONS, (tuple(sorted(whole)), tuple(sorted(core)), tuple(sorted(enhancing))), strict=True))


def _id_of(path: Path) -> str | None:
    """Return the name of the case that an image's file is of; None where it is not named so."""
    match = NUMBERED.match(stem(path))
    return match.group(1) if match else None


def _count(root: Path, folder: str) -> int:
    """Return how many cases have an image in a folder."""
    return len({name for path in volumes(root / folder) if (name := _id_of(path))})


def _cases(
    root: Path, folder: str, order: tuple[int, ...], findings: list[Finding], *, with_labels: bool
) -> tuple[Case, ...]:
    """Return the cases of a folder of images; what keeps others out is added to `findings`.

    Args:
        root: The folder of the data set.
        folder: `imagesTr` or `imagesTs`.
        order: The number of each modality's channel.
        findings: Where findings go.
        with_labels: Whether each case must have a label.
    """
    channels: dict[str, dict[int, Path]] = {}
    for path in volumes(root / folder):
        if match := NUMBERED.match(stem(path)):
            channels.setdefault(match.group(1), {}).setdefault(int(match.group(2)), path)
    cases, trained_on = [], with_labels
    for name, files in channels.items():
        missing = [f"_{number:04d}" for number in order if number not in files]
        label = find(root / "labelsTr" / f"{name}.nii.gz") if trained_on else None
        if extra := [number for number in files if number not in order]:
            numbers = ", ".join(f"{number:04d}" for number in extra)
            findings.append(Finding("extra-channel", name, folder, f"{name} with {numbers}", trained_on))
        if missing:
            value = f"no {name}{', '.join(missing)}"
            findings.append(Finding("missing-modality", name, folder, value, trained_on))
        elif trained_on and label is None:
            findings.append(Finding("missing-label", name, f"labelsTr/{name}.nii.gz", "no such file"))
        else:
            cases.append(Case(name, patient_of(name), tuple(files[number] for number in order), label))
    return tuple(cases)


def _named_cases(
    root: Path, entries: Mapping[str, Any], order: tuple[int, ...], findings: list[Finding], *, with_labels: bool
) -> tuple[Case, ...]:
    """Return the cases of dataset.json's key `dataset`: images in the order of the channels, and a label, by name."""
    cases = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("images"), list):
            raise MisError(f"{root / INDEX}: each entry of dataset must have images and a label", got=entry)
        files = [named_file(root, image, name) for image in entry["images"]]
        label: Path | Finding | None = None
        if with_labels and entry.get("label"):
            label = named_file(root, entry["label"], name)
        elif with_labels:
            label = Finding("missing-label", name, INDEX, "no label in its entry")
        bad = [file for file in (*files, label) if isinstance(file, Finding)]
        if not bad and len(files) != len(order):
            bad = [Finding("missing-modality", name, INDEX, f"{len(files)} images")]
        findings += bad
        if not bad:
            images = tuple(file for number in order if isinstance(file := files[number], Path))
            cases.append(Case(name, patient_of(name), images, label if isinstance(label, Path) else None))
    return tuple(cases)
