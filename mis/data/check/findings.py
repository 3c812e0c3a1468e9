"""What a check found: the rules, and the tables that say where they are broken."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mis.files import new_file, write_csv, write_json

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
"""By the name that a table has."""

WARNINGS = {
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
}
"""Rules that do not keep a case out."""


PAGE = "check.html"
"""The table for a person, among the files that `write_tables` writes."""


@dataclass(frozen=True)
class Finding:
    """A rule that is broken.

    Attributes:
        rule: Its name among `RULES`.
        case: The case's name; "" where it is about the data set.
        file: The file within the data set; "" where it is about more than one.
        value: What was found.
        trained_on: Whether it matters to training: it is about a case with a label, or the data set.
    """

    rule: str
    case: str
    file: str
    value: str
    trained_on: bool = True

    @property
    def severity(self) -> Literal["error", "warning"]:
        """Whether the case can be used all the same."""
        return "warning" if self.rule in WARNINGS else "error"

    def row(self) -> dict[str, object]:
        """Return its line of a table."""
        return {
            "severity": self.severity,
            "case": self.case,
            "file": self.file,
            "rule": self.rule,
            "value": self.value,
            "meaning": RULES[self.rule],
        }

    def __str__(self) -> str:
        where = self.file or self.case
        return f"{where + ': ' if where else ''}{RULES[self.rule]}, got {self.value}"


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Return those that keep a case out."""
    return [finding for finding in findings if finding.severity == "error"]


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return errors first, then by case."""
    return tuple(sorted(findings, key=lambda one: (one.severity, one.case, one.file, one.rule, one.value)))


def write_tables(
    folder: Path, findings: Sequence[Finding], cases: Sequence[Mapping[str, object]], facts: Mapping[str, object]
) -> Path:
    """Write `findings.csv`, `cases.csv`, `check.json` and `check.html`, and return the page.

    Args:
        folder: Where they go.
        findings: What was found.
        cases: A line for each case that could be read.
        facts: What else the page says at its top, e.g. the data set's folder and the verdict.
    """
    header = dict.fromkeys(Finding("case-count", "", "", "").row(), "")
    write_csv(folder / "findings.csv", [finding.row() for finding in findings], header=tuple(header))
    write_csv(folder / "cases.csv", cases)
    write_json(folder / "check.json", {**facts, "findings": [one.row() for one in findings], "cases": list(cases)})
    with new_file(folder / PAGE) as unfinished:
        unfinished.write_text(_page(findings, cases, facts), encoding="utf-8")
    return folder / PAGE


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1f2933 }
table { border-collapse: collapse; width: 100%; font-size: 13px; margin: 0 0 2rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d9e2ec; vertical-align: top }
th { background: #f0f4f8; position: sticky; top: 0 }
.error td:first-child { color: #b42318; font-weight: 600 } .warning td:first-child { color: #8a5a00; font-weight: 600 }
"""


def _page(findings: Sequence[Finding], cases: Sequence[Mapping[str, object]], facts: Mapping[str, object]) -> str:
    title = f"Check of {facts.get('root', 'a data set')}"
    told = "".join(f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>" for key, value in facts.items())
    found = _table([finding.row() for finding in findings]) if findings else "<p>Nothing was found.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title><style>{STYLE}</style>'
        f"<h1>{_text(title)}</h1><table>{told}</table><h2>Findings</h2>{found}<h2>Cases</h2>{_table(cases)}</html>\n"
    )


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    if not rows:
        return "<p>None.</p>"
    keys = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{_text(key)}</th>" for key in keys)
    body = "".join(f'<tr class="{_text(row.get("severity", ""))}">{_cells(row, keys)}</tr>' for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, object], keys: Sequence[str]) -> str:
    return "".join(f"<td>{_text(row.get(key))}</td>" for key in keys)


def _text(value: object) -> str:
    return html.escape(value if isinstance(value, str) else json.dumps(value) if value is not None else "")


def to_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return what `from_json` takes."""
    return [asdict(finding) for finding in findings]


def from_json(rows: Iterable[dict[str, Any]]) -> tuple[Finding, ...]:
    """Return the findings that `to_json` wrote."""
    return tuple(Finding(**row) for row in rows)
