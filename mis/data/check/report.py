"""What `python -m mis.data check` shows and writes."""

from collections import Counter
from pathlib import Path

from mis.data.case import DataSet
from mis.data.check.data_set import DataSetCheck
from mis.data.check.findings import Finding
from mis.data.check.tables import write_tables
from mis.data.check.wording import sentence
from mis.errors import MisError
from mis.params.data import DataParams
from mis.words import counted

MOST_SHOWN = 20
"""Findings that the terminal shows; the tables have all of them."""


def verdict(result: DataSetCheck) -> str:
    """Return how many errors and warnings a check found."""
    wrong = len(result.errors)
    counts = [counted(wrong, "error"), counted(len(result.findings) - wrong, "warning")]
    return ", ".join(counts) if result.findings else "nothing was found"


def summary(result: DataSetCheck, data: DataSet) -> list[str]:
    """Return the lines that the terminal shows: findings, how often each rule is broken, and the verdict last."""
    lines = [f"{finding.severity}: {sentence(finding)}" for finding in result.findings[:MOST_SHOWN]]
    if len(result.findings) > MOST_SHOWN:
        rules = Counter(finding.rule for finding in result.findings)
        counts = ", ".join(f"{number} {rule}" for rule, number in rules.most_common())
        lines.append(f"... {len(result.findings)} in all: {counts}")
    cases = f"{counted(len(data.cases), 'case')} with a label, {len(data.unlabelled)} without"
    cases += f", {result.incomplete} that cannot be put together" if result.incomplete else ""
    return [*lines, f"{data.root} ({data.layout}): {cases}: {verdict(result)}"]


def write_report(result: DataSetCheck, data: DataSet, params: DataParams, folder: Path) -> Path:
    """Write the tables of a check to a folder, and return the path of the page."""
    facts = {
        "root": str(data.root),
        "layout": data.layout,
        "verdict": verdict(result),
        "cases": len(data.cases),
        "unlabelled": len(data.unlabelled),
        "incomplete": result.incomplete,
        "spacing_mm": list(params.spacing_mm),
        "other_spacing": params.other_spacing,
    }
    return write_tables(folder, result.findings, result.cases, facts)


def write_not_understood(error: MisError, root: Path, folder: Path) -> None:
    """Write the tables of a folder that is in none of the layouts, in place of those of an earlier check.

    Args:
        error: Why it is not understood.
        root: The folder that was to be checked.
        folder: The folder of the tables.
    """
    finding = Finding("not-understood", "", "", str(error))
    write_tables(folder, [finding], [], {"root": str(root), "verdict": counted(1, "error")})
