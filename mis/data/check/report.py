"""What a check tells: lines for a terminal, and tables."""

from collections import Counter
from pathlib import Path

from mis.data.case import DataSet
from mis.data.check.dataset import Checked
from mis.data.check.findings import Finding, write_tables
from mis.errors import MisError
from mis.params.data import DataParams

MOST = 20
"""Findings that a terminal shows; the tables have all."""


def verdict(checked: Checked) -> str:
    """Return what the check came to, in a few words."""
    wrong = len(checked.errors)
    told = [_counted(wrong, "error"), _counted(len(checked.findings) - wrong, "warning")]
    return ", ".join(told) if checked.findings else "nothing was found"


def summary(checked: Checked, data: DataSet) -> list[str]:
    """Return lines for a person: the findings, how many of which rule, and the verdict last."""
    lines = [f"{finding.severity}: {finding}" for finding in checked.findings[:MOST]]
    if len(checked.findings) > MOST:
        counts = Counter(finding.rule for finding in checked.findings)
        lines.append(
            f"... {len(checked.findings)} in all: {', '.join(f'{n} {rule}' for rule, n in counts.most_common())}"
        )
    cases = f"{_counted(len(data.cases), 'case')} with a label, {len(data.unlabelled)} without"
    cases += f", {checked.incomplete} that cannot be put together" if checked.incomplete else ""
    return [*lines, f"{data.root} ({data.layout}): {cases}: {verdict(checked)}"]


def write_report(checked: Checked, data: DataSet, params: DataParams, folder: Path) -> Path:
    """Write the tables, and return the page."""
    facts = {
        "root": str(data.root),
        "layout": data.layout,
        "verdict": verdict(checked),
        "cases": len(data.cases),
        "unlabelled": len(data.unlabelled),
        "incomplete": checked.incomplete,
        "spacing_mm": list(params.spacing_mm),
        "other_spacing": params.other_spacing,
    }
    return write_tables(folder, checked.findings, checked.cases, facts)


def write_refusal(error: MisError, root: Path, folder: Path) -> None:
    """Write the tables of a folder of which nothing can be checked: what is there may be of another check."""
    finding = Finding("not-understood", "", "", str(error))
    write_tables(folder, [finding], [], {"root": str(root), "verdict": _counted(1, "error")})


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
