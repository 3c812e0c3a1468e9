"""The tables of a check: findings.csv, cases.csv, check.json, and check.html for a person."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mis.data.check.findings import Finding
from mis.data.check.wording import RULES
from mis.files import new_file, write_csv, write_json
from mis.pages import render

PAGE = "check.html"
TEMPLATE = "check.html.j2"
COLUMNS = ("severity", "case", "file", "rule", "value", "meaning")
"""The columns of the table of findings."""

Row = Mapping[str, object]
"""A line of a table: a value for each column that it has."""


def write_tables(folder: Path, findings: Sequence[Finding], cases: Sequence[Row], facts: Row) -> Path:
    """Write `findings.csv`, `cases.csv`, `check.json` and `check.html`, and return the path of the page.

    Args:
        folder: The folder that they are written to.
        findings: What was found.
        cases: A row for each case that could be read.
        facts: What the page says at its top, e.g. the data set's folder and the verdict.
    """
    rows = [finding_row(finding) for finding in findings]
    write_csv(folder / "findings.csv", rows, header=COLUMNS)
    write_csv(folder / "cases.csv", cases)
    write_json(folder / "check.json", {**facts, "findings": rows, "cases": list(cases)})
    with new_file(folder / PAGE) as unfinished:
        unfinished.write_text(_page(rows, cases, facts), encoding="utf-8")
    return folder / PAGE


def finding_row(finding: Finding) -> dict[str, object]:
    """Return a finding's row of the table, with the columns of `COLUMNS`."""
    values = (finding.severity, finding.case, finding.file, finding.rule, finding.value, RULES[finding.rule])
    return dict(zip(COLUMNS, values, strict=True))


def _page(findings: Sequence[Row], cases: Sequence[Row], facts: Row) -> str:
    """Return the page's HTML; whatever comes from the data set is escaped."""
    values = {
        "title": f"Check of {facts.get('root', 'a data set')}",
        "facts": facts,
        "tables": {"Findings": (findings, "Nothing was found."), "Cases": (cases, "None.")},
        "columns": lambda rows: list(dict.fromkeys(column for row in rows for column in row)),
    }
    return render(__package__, TEMPLATE, values, {"cell": _cell})


def _cell(value: object) -> str:
    """Return a value as the text of a cell: nothing for None, and JSON for what is no text."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
