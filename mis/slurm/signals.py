"""The signals that tell a job of SLURM to end."""

from __future__ import annotations

import signal
import time


class Signals:
    """The signals that have come since this was made.

    Attributes:
        limit_is_near: Whether SIGUSR1 came, which the batch script asks for before the time limit.
        terminated_at: When SIGTERM came, by `time.monotonic`: the limit itself, `scancel`, or a job that goes before.
            SLURM kills the job some seconds after it (KillWait, 30 s unless the cluster has another).
    """

    def __init__(self) -> None:
        self.limit_is_near = False
        self.terminated_at: float | None = None
        signal.signal(signal.SIGUSR1, self._near)
        signal.signal(signal.SIGTERM, self._terminate)

    def _near(self, *_: object) -> None:
        self.limit_is_near = True

    def _terminate(self, *_: object) -> None:
        if self.terminated_at is None:
            self.terminated_at = time.monotonic()

    @property
    def terminated(self) -> bool:
        """Whether SIGTERM came."""
        return self.terminated_at is not None

    @property
    def is_ending(self) -> bool:
        """Whether the job is to end."""
        return self.limit_is_near or self.terminated

    def deadline(self, usual: float, after_sigterm_s: float) -> float:
        """Return until when something that ends may take.

        Args:
            usual: Until when it may take without SIGTERM, by `time.monotonic`.
            after_sigterm_s: How many seconds after SIGTERM it must have ended.
        """
        return usual if self.terminated_at is None else min(usual, self.terminated_at + after_sigterm_s)
