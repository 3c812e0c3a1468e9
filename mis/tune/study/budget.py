"""Whether a study is over: because its budget is reached, or because all its trials have ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from mis.errors import MisError, NodeAwayError, WorkerError
from mis.params.tune import TuneParams


@dataclass
class Budget:
    """Knows when a study ends. What it knows changes while the study runs.

    Attributes:
        params: The search, with its limits.
        earlier_s: Seconds that the study has run in earlier sessions.
        best_dice: The best validation Dice so far.
        clock: Seconds that never go back.
        unended: The numbers of the trials that have begun and not ended.
        all_begun: Whether no further trial will begin.
        given_up: Why the study is left before its end: no trial could go on.
    """

    params: TuneParams
    earlier_s: float = 0.0
    best_dice: float = -inf
    clock: Callable[[], float] = time.monotonic
    unended: set[int] = field(default_factory=set)
    all_begun: bool = False
    given_up: MisError | None = None

    def __post_init__(self) -> None:
        self.started_at = self.clock() - self.earlier_s

    @property
    def elapsed_s(self) -> float:
        """Seconds that the study has run, over all its sessions."""
        return self.clock() - self.started_at

    @property
    def hours_left(self) -> float | None:
        """Hours until `tune.hours` is reached; None where there is no such limit."""
        return None if self.params.hours is None else self.params.hours - self.elapsed_s / 3600

    @property
    def reached(self) -> Literal["", "target_dice", "hours"]:
        """The limit that is reached, by its name under `tune`; empty while none is."""
        if self.params.target_dice is not None and self.best_dice >= self.params.target_dice:
            return "target_dice"
        return "hours" if self.hours_left is not None and self.hours_left < 0 else ""

    @property
    def is_reached(self) -> bool:
        """Whether a limit is reached: then trials that still run are stopped."""
        return bool(self.reached)

    @property
    def is_over(self) -> bool:
        """Whether the study has come to its end: a limit is reached, or all its trials have ended."""
        return self.given_up is None and (self.is_reached or (self.all_begun and not self.unended))

    def give_up(self, error: MisError) -> None:
        """Leave the study: the trials that run are interrupted. The first reason counts."""
        self.given_up = self.given_up or error

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """Leave the study where the block finds that it cannot go on: Ray Tune would take it for a trial's error."""
        try:
            yield
        except MisError as error:
            self.give_up(error)
        except WorkerError as error:  # of a server that does not answer
            self.give_up(NodeAwayError(str(error)))
        except OSError as error:  # of a file system that fails for a while
            self.give_up(MisError(f"the study's files must be readable: {error}", do="the same command goes on"))

    def begin(self, number: int) -> None:
        """Note that a trial has begun."""
        self.unended.add(number)

    def end(self, number: int) -> None:
        """Note that a trial has ended."""
        self.unended.discard(number)

    def note_dice(self, dice: float) -> None:
        """Note a trial's validation Dice: the best one may reach `tune.target_dice`."""
        self.best_dice = max(self.best_dice, dice)
