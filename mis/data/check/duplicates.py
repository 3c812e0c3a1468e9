"""Images and labels that a data set has twice: they would leak from training to test."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from mis.data.case import MODALITIES, Case
from mis.data.check.findings import Finding

LABEL = "label"


def find_duplicates(contents: Iterable[tuple[Case, Sequence[str]]]) -> list[Finding]:
    """Return a finding for each case that has the image of another case, or some of its modalities, or its label.

    Args:
        contents: Each case with `content_sha256` of its voxels: a hash of each modality, then of the label; "" where
            there is nothing to compare, and nothing at all where the case could not be read.
    """
    # The first case by name keeps its image, and one with a label before one without: the order of reading is random.
    ordered = sorted(contents, key=lambda item: (item[0].label is None, item[0].id))
    first_with: dict[str, str] = {}
    findings: list[Finding] = []
    for case, hashes in ordered:
        copied: dict[str, list[str]] = defaultdict(list)
        for name, sha256 in zip((*MODALITIES, LABEL), hashes, strict=False):
            if sha256 and first_with.setdefault(sha256, case.id) != case.id:
                copied[first_with[sha256]].append(name)
        findings += _findings(case, copied.items())
    return findings


def _findings(case: Case, copied: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Finding]:
    """Yield a finding for each other case, with the names of what this one has of it."""
    for other, names in copied:
        if modalities := [name for name in names if name != LABEL]:
            what = "that" if len(modalities) == len(MODALITIES) else ", ".join(modalities)
            yield Finding("same-image", case.id, "", f"{what} of {other}")
        else:
            yield Finding("same-label", case.id, "", f"that of {other}")
