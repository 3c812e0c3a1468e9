"""Collects the findings of a case while it is checked."""

from pathlib import Path

from mis.data.case import Case, DataSet
from mis.data.check.findings import Finding


class Collector:
    """The findings of one case, in the order in which they were found."""

    def __init__(self, case: Case, data: DataSet) -> None:
        self._case, self._data = case, data
        self.findings: list[Finding] = []

    def add(self, rule: str, file: Path | None, value: str) -> None:
        """Add a finding.

        Args:
            rule: The rule that is broken.
            file: The file that breaks it; None where several do.
            value: What was found.
        """
        self.findings.append(Finding(rule, self._case.id, self._data.name(file) if file else "", value))
