"""A finding: where a data set breaks a rule of the check.

What each rule says in words is in `mis.data.check.wording`, which no training imports.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

WARNINGS = frozenset({
    "no-orientation",
    "outside-link",
    "undeclared-file",
    "misnamed-label",
    "affine-rounding",
    "no-air",
    "empty-label",
    "file-ending",
    "outside-brain",
    "unlabelled",
})  # fmt: skip
"""Rules whose break is a warning: the case can be used all the same. The break of any other rule is an error."""


@dataclass(frozen=True)
class Finding:
    """A rule that is broken.

    Attributes:
        rule: The rule's name, a key of `mis.data.check.wording.RULES`.
        case: The case's name; "" where the finding is about the data set as a whole.
        file: The file's path within the data set; "" where the finding is about several files.
        value: The value that was found, as text.
        trained_on: Whether the finding matters to training: it is about a case with a label, or about the data set.
    """

    rule: str
    case: str
    file: str
    value: str
    trained_on: bool = True

    @property
    def severity(self) -> Literal["error", "warning"]:
        """An error keeps the case out of the records, a warning does not."""
        return "warning" if self.rule in WARNINGS else "error"


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are errors."""
    return [finding for finding in findings if finding.severity == "error"]


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return errors before warnings, each sorted by case, file, rule and value."""

    def key(finding: Finding) -> tuple[str, ...]:
        return finding.severity, finding.case, finding.file, finding.rule, finding.value

    return tuple(sorted(findings, key=key))


def to_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON values, which `from_json` reads."""
    return [asdict(finding) for finding in findings]


def from_json(rows: Iterable[dict[str, Any]]) -> tuple[Finding, ...]:
    """Return the findings that `to_json` wrote."""
    return tuple(Finding(**row) for row in rows)
