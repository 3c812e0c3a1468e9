"""Which nodes are left out of a search: those on which trials fail before their first epoch, again and again."""

import re
from dataclasses import dataclass, field

IN_A_ROW = 3
"""Different trials in a row that fail before an epoch, for the same reason, before their node is left out."""

DETAILS = re.compile(r"\S*/\S+|\d+(\.\d+)?")
"""Paths and numbers: they differ from trial to trial where the reason is the same."""


@dataclass
class BadNodes:
    """Remembers on which nodes starts of trials have failed.

    A full disk, a dead GPU or records that are not there end a trial within seconds: such a node would use up a study.
    A trial that fails again and again says nothing of its node: different ones must.

    Attributes:
        left_out: The nodes that get no trial any more, by name, with the reason.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    _failed: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def failed(self, node: str, reason: str, number: int) -> bool:
        """Note that a start of a trial has ended before an epoch.

        Args:
            node: The node's name.
            reason: What the trial's error says; paths and numbers in it do not count.
            number: The trial's number.

        Returns:
            Whether the node is left out from now on, and was not before.
        """
        row, kind = self._failed.setdefault(node, []), DETAILS.sub("", reason)
        if row and row[-1][0] != kind:
            row.clear()
        row.append((kind, number))
        if len(self.failed_on(node)) < IN_A_ROW or node in self.left_out:
            return False
        self.left_out[node] = reason
        return True

    def had_epoch(self, node: str) -> None:
        """Note that a trial has had an epoch on a node: what failed there before was not the node's fault."""
        self._failed.pop(node, None)

    def failed_on(self, node: str) -> set[int]:
        """Return the numbers of the trials that have failed on a node since its last epoch."""
        return {number for _, number in self._failed.get(node, [])}
