"""Read a case, check it, and bring it to RAS and to the wanted spacing, before anything is computed from it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mis.data.case import Case, DataSet
from mis.data.check.collector import Collector
from mis.data.check.findings import Finding, errors
from mis.data.check.fingerprint import combine, content_sha256
from mis.data.check.headers import Images, check_axes, check_same_grid, check_spacing, check_voxel_size, in_mm
from mis.data.check.voxels import check_air, check_finite, check_label_in_brain, check_modalities, whole_label
from mis.data.geometry import Geometry
from mis.data.records.preprocess import Brain, find_brain
from mis.data.volumes import Image, UnreadableError, read_image, without_trailing_axes
from mis.params.data import DataParams

LONGEST_AXIS, MOST_VOXELS = 1024, 2**27
"""Limits of a grid after resampling, a head's at 0.5 mm; a larger one has a header in another unit."""


@dataclass(frozen=True)
class CheckedCase:
    """A case as it was read, and what is wrong with it.

    Attributes:
        case: The case.
        findings: What is wrong with it.
        brain: Its voxels; None where its files cannot be brought to one grid.
        geometry: Where they lie; the box is the brain's.
        sha256: The hash of its files, one after another.
        content: See `mis.data.check.fingerprint.content_sha256`; empty where there is no brain.
        facts: What the table of cases says of it: shape, spacing, orientation, type of its voxels, label values.
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
        """Whether its record can be made: it was read, and has no error."""
        return self.brain is not None and not errors(self.findings)


def check_case(case: Case, data: DataSet, params: DataParams) -> CheckedCase:
    """Read a case, check it, and bring it to RAS and to the wanted spacing.

    Args:
        case: A case with or without a label.
        data: The data set that it is from.
        params: The spacing, what to do about another one, and whether to crop to the brain.
    """
    findings = Collector(case, data)
    images = {path: image for path in case.files if (image := _read(path, findings))}
    sha256 = combine(image.sha256 for image in images.values())
    unread = CheckedCase(case, (), None, None, sha256, (), {})
    if len(images) < len(case.files) or not check_axes(case, images, findings):
        return replace(unread, findings=tuple(findings.findings))
    facts = _image_facts(images[case.images[0]])
    # In this order: the spacing of a case whose files do not fit together means nothing.
    checks = (check_same_grid, check_voxel_size, partial(check_spacing, params=params))
    fits = all(check(case, images, findings) for check in checks)
    if not fits or (placed := _place(case, images, data, params, findings)) is None:
        return replace(unread, findings=tuple(findings.findings), facts=facts)
    brain, geometry = placed
    facts |= _label_facts(case, brain, data, findings)
    facts |= {"brain_voxels": len(brain.values), "box": list(brain.mask.shape)}
    content = content_sha256(brain, geometry)
    return CheckedCase(case, tuple(findings.findings), brain, geometry, sha256, content, facts)


def _read(path: Path, findings: Collector) -> Image | None:
    try:
        return read_image(path)
    except UnreadableError as error:
        findings.add("unreadable", path, error.reason)
        return None


def _place(
    case: Case, images: Images, data: DataSet, params: DataParams, findings: Collector
) -> tuple[Brain, Geometry] | None:
    """Return the brain of a case on its RAS grid, and where it lies; None where an error does not let it."""
    first = images[case.images[0]]
    geometry = Geometry.of(first.voxels.shape[:3], first.affine, params.spacing_mm)
    volumes = _to_grid(case, images, geometry, data, findings)
    if volumes is None:
        return None
    brain = find_brain(*volumes, crop=params.crop == "brain")
    check_modalities(case, brain, findings)
    check_air(case, brain, geometry.grid, findings)
    if case.label is not None and brain.label is not None and not _is_resampled(geometry):
        brain = replace(brain, label=whole_label(brain.label, case.label, data, findings))
    return brain, replace(geometry, start=brain.start, size=brain.mask.shape)


def _to_grid(
    case: Case, images: Images, geometry: Geometry, data: DataSet, findings: Collector
) -> tuple[list[NDArray[Any]], NDArray[Any] | None] | None:
    """Bring the modalities and the label of a case to its RAS grid; None where an error does not let them."""
    if max(geometry.grid) > LONGEST_AXIS or np.prod(geometry.grid) > MOST_VOXELS:
        spacing = images[case.images[0]].spacing_mm
        findings.add("spacing", case.images[0], f"{in_mm(spacing)}, which would become {geometry.grid} voxels")
        return None
    channels = [channel for path in case.images for channel in _channels(images[path].voxels)]
    label = None if case.label is None else without_trailing_axes(images[case.label].voxels, 3)
    # Before resampling: a wrong voxel may not be among those that are taken, or spoil those around it.
    if _is_resampled(geometry):
        if not check_finite(case, channels, findings):
            return None
        if case.label is not None and label is not None:
            label = whole_label(label, case.label, data, findings)
    volumes = [geometry.to_grid(channel, nearest=False) for channel in channels]
    return volumes, None if label is None else geometry.to_grid(label, nearest=True)


def _is_resampled(geometry: Geometry) -> bool:
    return geometry.grid != geometry.ras_shape


def _channels(voxels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the modalities of an image: those of a 4-D file, or the one of a 3-D file."""
    volume = without_trailing_axes(voxels, 3)
    return [volume] if volume.ndim == 3 else [volume[..., number] for number in range(volume.shape[3])]


def _image_facts(image: Image) -> dict[str, object]:
    return {
        "shape": list(image.voxels.shape[:3]),
        "spacing_mm": [round(edge, 4) for edge in image.spacing_mm],
        "orientation": "".join(nib.aff2axcodes(image.affine)),
        "dtype": str(image.voxels.dtype),
    }


def _label_facts(case: Case, brain: Brain, data: DataSet, findings: Collector) -> dict[str, object]:
    """Check where a case's label lies, and return how many voxels have each of its values."""
    if case.label is None or brain.label is None:
        return {}
    check_label_in_brain(case.label, brain.label, brain, findings)
    counts = np.bincount(brain.label.ravel(), minlength=256)
    return {f"label_{value}": int(counts[value]) for value in data.label_values if value}
