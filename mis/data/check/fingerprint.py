"""Hashes of a case: of its files as they are, and of its voxels however they are packed."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mis.data.case import Case
from mis.data.geometry import Geometry
from mis.data.records.preprocess import Brain


def files_sha256(case: Case) -> str:
    """Return the hash of a case's files, which `mis.data.check.case.check_case` finds too."""
    return combine(hashlib.sha256(path.read_bytes()).hexdigest() for path in case.files)


def combine(hashes: Iterable[str]) -> str:
    """Return a hash of several files' hashes, in their order."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def content_sha256(brain: Brain, geometry: Geometry) -> tuple[str, ...]:
    """Return a hash of each modality's voxels that are not 0, and of those that the label marks.

    An image keeps its hash under another name, packed otherwise, or elsewhere in its grid. Each modality is hashed by
    itself, as a voxel that is 0 in it may be brain in another one. "" stands for a modality whose voxels are all alike,
    and for a label that marks nothing.
    """
    label = ""
    if brain.label is not None and brain.label.any():
        label = hashlib.sha256((np.argwhere(brain.label) + geometry.start).tobytes()).hexdigest()
    return (*(_modality_sha256(values) for values in brain.values.T), label)


def _modality_sha256(values: NDArray[np.float32]) -> str:
    nonzero = values[values != 0]
    return hashlib.sha256(nonzero.tobytes()).hexdigest() if nonzero.size and (nonzero != nonzero[0]).any() else ""
