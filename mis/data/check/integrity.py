"""Read a case and say what is wrong with it, before anything is computed from it."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from mis.data.case import MODALITIES, Case, DataSet
from mis.data.check.findings import Finding, errors
from mis.data.geometry import Geometry, same_spacing
from mis.data.records.preprocess import Brain, find_brain, moments
from mis.data.volumes import Image, read_image
from mis.errors import MisError
from mis.params.data import DataParams

ROUNDING_MM = 0.01
"""Affines that place a corner of the volume less far apart differ by rounding."""
WHOLE = 1e-3
"""A label value that differs from a whole number by less is that number."""

MOST_BRAIN = 0.9
"""Of the voxels; the brain fills a fifth of a BraTS volume."""

LONGEST_AXIS, MOST_VOXELS = 1024, 2**27
"""Of a grid after resampling, a head's at 0.5 mm; a larger one has a header in another unit."""
MOST_OUTSIDE = 0.05
"""Of what a label marks; the border of a real one lies some voxels beyond the skull-stripped brain."""

THINNEST_MM, THICKEST_MM, LONGEST_MM = 0.2, 8.0, 500.0
"""Of a voxel, and of a volume: what is beyond has a header in another unit, or a wrong one."""

NOT_FINITE = "NaN, infinity or more than float32 holds in {} of the voxels of {}"
"""Of which modality."""

Found = Callable[[str, Path | None, str], None]


@dataclass(frozen=True)
class Examined:
    """What a case turned out to be.

    Attributes:
        case: It.
        findings: What is wrong with it.
        brain: Its voxels; None where an error keeps it out.
        geometry: Where they lie; the box is the brain's.
        sha256: Of its files, one after another.
        content: A hash of each modality's voxels that are not 0: the same for the same image under another name,
            or packed otherwise, or lying elsewhere in its grid; "" where they are all alike. Then one of the
            voxels that the label marks; "" where there are none.
        facts: What a table says of it: shape, spacing, orientation, type, label values.
    """

    case: Case
    findings: tuple[Finding, ...]
    brain: Brain | None
    geometry: Geometry | None
    sha256: str
    content: tuple[str, ...]
    facts: Mapping[str, object]

    @property
    def usable(self) -> bool:
        """Whether no error keeps it out."""
        return self.brain is not None and not errors(self.findings)


def examine(case: Case, data: DataSet, params: DataParams) -> Examined:
    """Read a case, check it, and bring it to RAS and to the wanted spacing.

    Args:
        case: With or without a label.
        data: Where it is from.
        params: The spacing, what to do about another one, and whether to crop to the brain.
    """
    findings: list[Finding] = []

    def found(rule: str, file: Path | None, value: str) -> None:
        findings.append(Finding(rule, case.id, data.name(file) if file else "", value))

    images = {path: image for path in case.files if (image := _read(path, found))}
    digest = _joined(image.sha256 for image in images.values())
    nothing = Examined(case, (), None, None, digest, (), {})
    if len(images) < len(case.files) or not _check_axes(case, images, found):
        return replace(nothing, findings=tuple(findings))
    first = images[case.images[0]]
    shape = first.voxels.shape[:3]
    facts = _facts(first)
    # One after another: of a case whose files do not fit together no spacing is told.
    checks = (_check_places, _check_size, partial(_check_spacing, params=params))
    if not all(check(case, images, found) for check in checks):
        return replace(nothing, findings=tuple(findings), facts=facts)
    geometry = Geometry.of(shape, first.affine, params.spacing_mm)
    volumes = _to_grid(case, images, geometry, data, found)
    if volumes is None:
        return replace(nothing, findings=tuple(findings), facts=facts)
    brain = find_brain(*volumes, crop=params.crop == "brain")
    geometry = replace(geometry, start=brain.start, size=brain.mask.shape)
    _check_modalities(case, brain, found)
    if len(brain.values) > MOST_BRAIN * np.prod(geometry.grid):
        file = case.images[0] if len(case.images) == 1 else None  # it is said of all modalities together
        found("no-air", file, f"{len(brain.values) / np.prod(geometry.grid):.0%} of the voxels are not 0")
    if case.label is not None and brain.label is not None:
        if not _is_resampled(geometry):
            brain = replace(brain, label=_whole_label(brain.label, case.label, data, found))
        facts |= _label_facts(case.label, brain, data, found)
    facts |= {"brain_voxels": len(brain.values), "box": list(brain.mask.shape)}
    return Examined(case, tuple(findings), brain, geometry, digest, _content(brain, geometry), facts)


def _to_grid(
    case: Case, images: Mapping[Path, Image], geometry: Geometry, data: DataSet, found: Found
) -> tuple[list[NDArray[Any]], NDArray[Any] | None] | None:
    """Bring the modalities and the label of a case to its RAS grid; None where an error does not let them."""
    if max(geometry.grid) > LONGEST_AXIS or np.prod(geometry.grid) > MOST_VOXELS:
        spacing = images[case.images[0]].spacing_mm
        found("spacing", case.images[0], f"{_mm(spacing)}, which would become {geometry.grid} voxels")
        return None
    channels = [channel for path in case.images for channel in _channels(images[path].voxels)]
    label = None if case.label is None else _squeezed(images[case.label].voxels, 3)
    if _is_resampled(geometry):  # a voxel that is wrong may not be among those that are taken, or spoil those around it
        if not _check_finite(case, channels, found):
            return None
        if case.label is not None and label is not None:
            label = _whole_label(label, case.label, data, found)
    volumes = [geometry.to_grid(channel, nearest=False) for channel in channels]
    return volumes, None if label is None else geometry.to_grid(label, nearest=True)


def _is_resampled(geometry: Geometry) -> bool:
    return geometry.grid != geometry.ras_shape


def _label_facts(path: Path, brain: Brain, data: DataSet, found: Found) -> dict[str, object]:
    """Check where a label lies, and return how many voxels have each of its values."""
    if brain.label is None:
        return {}
    _check_inside(path, brain, found)
    counts = np.bincount(brain.label.ravel(), minlength=256)
    return {f"label_{value}": int(counts[value]) for value in data.label_values if value}


def source_sha256(case: Case) -> str:
    """Return the hash of a case's files that `examine` finds."""
    return _joined(hashlib.sha256(path.read_bytes()).hexdigest() for path in case.files)


def _joined(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def load_case(case: Case, data: DataSet, params: DataParams) -> Examined:
    """Read a case that must have a label and nothing that keeps it out.

    Raises:
        MisError: The first thing that is wrong with it.
    """
    if case.label is None:
        raise MisError(f"case {case.id} must have a label", got="none")
    examined = examine(case, data, params)
    if wrong := errors(examined.findings):
        raise refusal(data, wrong)
    return examined


def refusal(data: DataSet, wrong: Sequence[Finding], page: Path | None = None) -> MisError:
    """Return what a command says that refuses a data set: the first error, how many there are, and where all are."""
    more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
    do = f"{page or check_command(data)} lists all; mend them, or set data.skip_bad_cases"
    return MisError(f"{data.root}: {wrong[0]}{more}", do=do)


def check_command(data: DataSet) -> str:
    """Return what a user types to see everything that is wrong with a data set."""
    return f"`python -m mis.data check {data.root}`"


def _read(path: Path, found: Found) -> Image | None:
    try:
        return read_image(path)
    except MisError as error:
        found("unreadable", path, str(error).removeprefix(f"{path} must be a complete NIfTI file: ").split("; copy")[0])
        return None


def _squeezed(voxels: NDArray[Any], axes: int) -> NDArray[Any]:
    """Drop trailing axes of length 1, which some programs write."""
    while voxels.ndim > axes and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return voxels


def _channels(voxels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the modalities of an image: those of a 4-D file, or the one of a 3-D file."""
    whole = _squeezed(voxels, 3)
    return [whole] if whole.ndim == 3 else [whole[..., number] for number in range(whole.shape[3])]


def _check_axes(case: Case, images: Mapping[Path, Image], found: Found) -> bool:
    """Check that each file has the axes of its layout, and the image of one file its modalities."""
    good = True
    for path, image in images.items():
        shape = image.voxels.shape
        axes = 4 if path in case.images and len(case.images) == 1 else 3
        if _squeezed(image.voxels, axes).ndim != axes:
            found("axes", path, f"{len(shape)} in shape {shape}, not {axes}")
            good = False
        elif axes == 4 and shape[3] != len(MODALITIES):
            found("modalities", path, f"{shape[3]} in shape {shape}")
            good = False
    return good


def _check_places(case: Case, images: Mapping[Path, Image], found: Found) -> bool:
    """Check that all files of a case have the shape and the affine of the first."""
    first = images[case.images[0]]
    good = True
    for path, image in images.items():
        shape, expected = image.voxels.shape[:3], first.voxels.shape[:3]
        if shape != expected:
            found("shape", path, f"{shape} and {expected} in {case.images[0].name}")
            good = False
        elif not np.allclose(image.spacing_mm, first.spacing_mm, rtol=1e-3):
            found("affine", path, f"voxels of {_mm(image.spacing_mm)} and {_mm(first.spacing_mm)}")
            good = False
        elif (apart := _apart_mm(image.affine, first.affine, expected)) >= ROUNDING_MM:
            found("affine", path, f"{apart:.3g} mm from {case.images[0].name}")
            good = False
        elif apart > 0:
            found("affine-rounding", path, f"{apart:.1g} mm from {case.images[0].name}")
    return good


def _apart_mm(one: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]) -> float:
    """Return how far two affines place the same corner of a volume from each other at most."""
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    apart = apply_affine(one, corners) - apply_affine(other, corners)
    return float(np.linalg.norm(apart, axis=-1).max())


def _check_size(case: Case, images: Mapping[Path, Image], found: Found) -> bool:
    """Check that voxels are as large as those of a scanner, and that the header says how they lie."""
    first = images[case.images[0]]
    if loose := [path for path, image in images.items() if not image.is_placed]:
        axes = "".join(nib.aff2axcodes(images[loose[0]].affine))
        found("no-orientation", loose[0], f"sform_code and qform_code 0 in {len(loose)} of its files, taken for {axes}")
    extents = np.multiply(first.spacing_mm, first.voxels.shape[:3])
    if min(first.spacing_mm) >= THINNEST_MM and max(first.spacing_mm) <= THICKEST_MM and max(extents) <= LONGEST_MM:
        return True
    found("voxel-size", case.images[0], f"{_mm(first.spacing_mm)}, a volume of {_mm(extents.tolist())}")
    return False


def _check_spacing(case: Case, images: Mapping[Path, Image], found: Found, params: DataParams) -> bool:
    image = images[case.images[0]]
    if params.other_spacing == "resample":
        return True
    ras = np.argsort(nib.io_orientation(image.affine)[:, 0])
    own = tuple(image.spacing_mm[axis] for axis in ras)
    if same_spacing(own, params.spacing_mm):
        return True
    found("spacing", case.images[0], f"{_mm(own)}, not {_mm(params.spacing_mm)}")
    return False


def _image_files(case: Case) -> tuple[Path, ...]:
    """Return the file of each modality."""
    return case.images if len(case.images) > 1 else case.images * len(MODALITIES)


def _check_finite(case: Case, channels: Sequence[NDArray[Any]], found: Found) -> bool:
    """Check that a file's own voxels are finite, as float32 too."""
    good = True
    for file, name, channel in zip(_image_files(case), MODALITIES, channels, strict=True):
        if channel.dtype.kind == "f":
            with np.errstate(over="ignore"):
                bad = np.count_nonzero(~np.isfinite(channel.astype(np.float32)))
            if bad:
                found("not-finite", file, NOT_FINITE.format(bad, name))
                good = False
    return good


def _check_modalities(case: Case, brain: Brain, found: Found) -> None:
    """Check that each modality is finite, not empty, not constant, and not the same as another."""
    files = _image_files(case)
    values = brain.values
    with np.errstate(all="ignore"):
        low, high = (values.min(axis=0), values.max(axis=0)) if len(values) else np.zeros((2, len(MODALITIES)))
        mean, deviation = moments(values) if len(values) else np.zeros((2, len(MODALITIES)))
    finite = np.isfinite(low) & np.isfinite(high)
    for number, name in enumerate(MODALITIES):
        if not finite[number]:
            bad = np.count_nonzero(~np.isfinite(values[:, number]))
            found("not-finite", files[number], NOT_FINITE.format(bad, name))
        elif low[number] == high[number] == 0:
            found("empty-modality", files[number], f"{name} is 0 everywhere")
        elif low[number] == high[number]:
            found("constant-modality", files[number], f"{name} is {low[number]:g} over the brain")
        for other in range(number):
            alike = (
                finite[number]
                and deviation[number]
                and (mean[other], deviation[other]) == (mean[number], deviation[number])
            )
            if alike and np.array_equal(values[:, other], values[:, number]):
                found("same-modality", files[number], f"{name} is the same as {MODALITIES[other]}")


def _check_inside(path: Path, brain: Brain, found: Found) -> None:
    marked = brain.label != 0
    outside = np.count_nonzero(marked & ~brain.mask)
    if outside > MOST_OUTSIDE * np.count_nonzero(marked):
        found("outside-brain", path, f"{outside / np.count_nonzero(marked):.0%} of what it marks lie in the air")


def _whole_label(label: NDArray[Any], path: Path, data: DataSet, found: Found) -> NDArray[np.uint8] | None:
    """Return a label as whole numbers, or None where it has other values than its layout has."""
    if label.dtype.kind == "f":
        if bad := np.count_nonzero(~np.isfinite(label)):
            found("not-finite", path, f"NaN or infinity in {bad} of the voxels")
            return None
        rounded = np.rint(label)
        if bad := np.count_nonzero(np.abs(label - rounded) > WHOLE):
            found("label-values", path, f"no whole number in {bad} of the voxels")
            return None
        label = rounded
    low, high = int(label.min()), int(label.max())
    values = (
        np.flatnonzero(np.bincount(label.ravel().astype(np.int64))) if low >= 0 and high < 256 else np.unique(label)
    )
    unknown = np.setdiff1d(values, data.label_values)
    if unknown.size:
        beside = f"{', '.join(f'{value:g}' for value in unknown[:5])} beside {list(data.label_values)}"
        found("label-values", path, beside)
        return None
    if not high:
        found("empty-label", path, "background alone")
    return label.astype(np.uint8)


def _facts(image: Image) -> dict[str, object]:
    return {
        "shape": list(image.voxels.shape[:3]),
        "spacing_mm": [round(edge, 4) for edge in image.spacing_mm],
        "orientation": "".join(nib.aff2axcodes(image.affine)),
        "dtype": str(image.voxels.dtype),
    }


def _content(brain: Brain, geometry: Geometry) -> tuple[str, ...]:
    """Return a hash of each modality by itself, as what is 0 in it may be brain in another one, and of the label."""

    def digest(values: NDArray[np.float32]) -> str:
        own = values[values != 0]
        return hashlib.sha256(own.tobytes()).hexdigest() if own.size and (own != own[0]).any() else ""

    label = ""
    if brain.label is not None and brain.label.any():
        label = hashlib.sha256((np.argwhere(brain.label) + geometry.start).tobytes()).hexdigest()
    return (*(digest(values) for values in brain.values.T), label)


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:.4g}" for edge in spacing) + " mm"
