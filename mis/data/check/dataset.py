"""Check a data set: every case by itself, and all of them against each other."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from mis.data.case import MODALITIES, Case, DataSet
from mis.data.check.findings import Finding, errors, ordered
from mis.data.check.integrity import Examined, examine
from mis.data.parallel import for_each
from mis.params.data import DataParams

LABEL = "label"


@dataclass(frozen=True)
class Checked:
    """What is wrong with a data set.

    Attributes:
        findings: Errors first.
        cases: A line for each case, those too that lack a file.
    """

    findings: tuple[Finding, ...]
    cases: tuple[dict[str, object], ...]

    @property
    def incomplete(self) -> int:
        """How many cases lack a file, so that they were not read."""
        return sum("label" not in row for row in self.cases)

    @property
    def errors(self) -> list[Finding]:
        """What keeps a case out."""
        return errors(self.findings)


def check(data: DataSet, params: DataParams, *, jobs: int, progress: bool = True) -> Checked:
    """Read every case, with and without a label, and say what is wrong.

    Args:
        data: The data set.
        params: What a case must be; nothing of it is written.
        jobs: Cases at once; each takes some 0.6 GB at 240 x 240 x 155.
        progress: Whether to show a bar.
    """

    def look(case: Case) -> Examined:
        return replace(examine(case, data, params), brain=None)  # its voxels need not stay in memory

    cases = (*data.cases, *data.unlabelled)
    # Threads: unpacking and arithmetic release the interpreter's lock.
    examined = for_each(look, cases, ThreadPoolExecutor(jobs), told="check", progress=progress)
    contents = [(one.case, one.content) for one in examined]
    findings = ordered(
        (*data.findings, *(finding for one in examined for finding in one.findings), *repeated_images(contents))
    )
    known = {one.case.id for one in examined}
    others = sorted({finding.case for finding in findings if finding.case} - known)  # e.g. without a modality
    rows = [*(_row(one.case.id, findings, one) for one in examined), *(_row(name, findings) for name in others)]
    return Checked(findings, tuple(sorted(rows, key=lambda row: str(row["case"]))))


def repeated_images(contents: Iterable[tuple[Case, Sequence[str]]]) -> list[Finding]:
    """Return a finding for each case that has the image of another one, or some of its modalities, or its label.

    Args:
        contents: Each case with the hash of each of its modalities and of its label; "" stands for none.
    """
    # The first by name stays, a labelled one before one without a label: the order of reading says nothing.
    cases = sorted(contents, key=lambda one: (one[0].label is None, one[0].id))
    first: dict[str, str] = {}
    found = []
    for case, content in cases:
        copied: dict[str, list[str]] = defaultdict(list)
        for name, digest in zip((*MODALITIES, LABEL), content, strict=False):
            if digest and first.setdefault(digest, case.id) != case.id:
                copied[first[digest]].append(name)
        for other, names in copied.items():
            if modalities := [name for name in names if name != LABEL]:
                what = "that" if len(modalities) == len(MODALITIES) else ", ".join(modalities)
                found.append(Finding("same-image", case.id, "", f"{what} of {other}"))
            else:
                found.append(Finding("same-label", case.id, "", f"that of {other}"))
    return found


def _row(name: str, findings: Sequence[Finding], examined: Examined | None = None) -> dict[str, object]:
    own = [finding for finding in findings if finding.case == name]
    named: dict[str, object] = {"case": name, "severity": "error" if errors(own) else "warning" if own else "ok"}
    return named if examined is None else named | {"label": examined.case.label is not None} | dict(examined.facts)
