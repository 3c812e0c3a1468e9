"""What a person sees of a search while it runs: a live table on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import IO, Final, TextIO, cast

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mis.params.base import Scalar
from mis.tune.console.progress import INTERRUPTED, RUNNING, Progress, Row
from mis.tune.console.text import end_of, headline, one_line, short_dice, short_names, short_values, tail

MOST_ENDED: Final = 5
"""Ended trials in the table while the search runs."""

MOST_AT_THE_END: Final = 15
"""Trials in the table that stays."""

PROGRESS_EVERY_S: Final = 60.0
"""Between two plain lines at least, if no trial ends."""

STYLES: Final = {
    RUNNING: "cyan",
    INTERRUPTED: "dim",
    "completed": "green",
    "stopped": "yellow",
    "diverged": "magenta",
    "failed": "red",
}


class Board:
    """Shows a search from `with` to its end.

    One thread calls it. `begin` and `report` write nothing to a terminal themselves, so that one that
    is slow, or held with Ctrl-S, does not hold the search.

    Args:
        study: The search's name.
        total: Trials that it will have, those of earlier processes included; None if nobody knows.
        concurrent: How many run at once.
        epochs: The most that a trial has.
        earlier: Trials that have ended in earlier processes, in the order of their starts.
        hours_left: After so many hours the search ends, from now; None if it has no such budget.
        stream: Where it is written: standard error, unless told otherwise.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        study: str,
        *,
        total: int | None,
        concurrent: int,
        epochs: int,
        earlier: Iterable[Row] = (),
        hours_left: float | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._progress = Progress(
            study,
            total,
            concurrent,
            epochs,
            begun_at=clock(),
            ends_at=inf if hours_left is None else clock() + 3600 * hours_left,
            rows={row.name: row for row in earlier},
        )
        self._view = _view(stream or sys.stderr, lambda: self._progress, clock)

    def __enter__(self) -> "Board":
        self._view.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress = self._progress.leave()
        self._view.stop()

    def begin(self, name: str, values: Mapping[str, Scalar]) -> None:
        """Show a trial that starts, or starts again from its last epoch."""
        row = self._row(name)
        self._put(replace(row, values=values, state=RUNNING, note="", heard_at=self._clock()))
        self._view.tick()

    def report(self, name: str, epoch: int, dice: float, best: float, epoch_s: float) -> None:
        """Show an epoch that has ended.

        Args:
            name: The trial's.
            epoch: Its number, from 1.
            dice: After it, on the validation split; may be NaN.
            best: The highest of the trial so far.
            epoch_s: Seconds of the epoch. Not taken from the clock: a trial that goes on in another
                process reports its earlier epochs once more, all at once, and one may pause.
        """
        row = self._row(name)
        self._put(replace(row, epochs=epoch, dice=dice, best=best, epoch_s=epoch_s, heard_at=self._clock()))
        self._view.tick()

    def end(self, name: str, state: str, dice: float | None, seconds: float, note: str = "") -> None:
        """Show what became of a trial; said twice, the last one counts.

        Args:
            name: The trial's.
            state: `completed`, `stopped`, `diverged` or `failed`.
            dice: Its best; None if it had no epoch.
            seconds: From its start to its end.
            note: Why it failed.
        """
        before = self._row(name)
        row = replace(before, state=state, best=dice, seconds=seconds, note=one_line(note))
        self._put(row)
        if (row.state, row.note) != (before.state, before.note):
            self._view.tell_end(row)

    def say(self, line: str) -> None:
        """Write a line that stays, above the table."""
        self._view.say(one_line(line))

    def _row(self, name: str) -> Row:
        return self._progress.rows.get(name, Row(name, {}))

    def _put(self, row: Row) -> None:
        self._progress = self._progress.put(row)


def _view(stream: TextIO, progress: Callable[[], Progress], clock: Callable[[], float]) -> "_Table | _Lines":
    # Rich would take a file for a terminal where CI has set FORCE_COLOR.
    console = Console(
        file=cast("TextIO", _Lasting(stream)),
        force_terminal=stream.isatty(),
        markup=False,
        emoji=False,
        highlight=False,
    )
    if console.is_interactive:
        return _Table(console, progress, clock, holds_stderr=stream is sys.stderr)
    return _Lines(console.file, progress, clock)


class _Lasting:
    """A stream whose reader may go away: a search does not end with the terminal that it was begun on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        """The stream's."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        with suppress(OSError):
            self._stream.flush()


# ---- On a terminal ----


class _Table:
    """A table that is drawn again twice a second, by a thread of Rich's."""

    def __init__(
        self, console: Console, progress: Callable[[], Progress], clock: Callable[[], float], *, holds_stderr: bool
    ) -> None:
        self._console = console
        self._progress = progress
        self._clock = clock
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=2,
            # What others print appears above the table; what goes to a file must still go there.
            redirect_stdout=holds_stderr and sys.stdout.isatty(),
            redirect_stderr=holds_stderr,
        )

    def start(self) -> None:
        """Begin to draw."""
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Draw the last table, which stays."""
        self._live.stop()

    def tick(self) -> None:
        """Do nothing: the thread draws."""

    def tell_end(self, row: Row) -> None:
        """Write why a trial failed: the table has no room for it."""
        if row.note:
            self.say(end_of(row, short_names(self._progress())))

    def say(self, line: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(line))

    def _draw(self) -> Group:
        progress = self._progress()  # once: it is another one a moment later
        head = Text(headline(progress, self._clock()), style="bold")
        if progress.over:
            rows = [*progress.ended, *progress.interrupted][:MOST_AT_THE_END]
        else:
            width, height = self._console.size
            room = height - len(head.wrap(self._console, width)) - 3  # the table's head, its rule, and a line to spare
            rows = [*progress.running, *progress.ended[:MOST_ENDED]][: max(room, 1)]
        return Group(head, _table(rows, progress)) if rows else Group(head)


def _table(rows: Iterable[Row], progress: Progress) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("trial", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("epoch", "Dice", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("values")
    names, best = short_names(progress), progress.best
    for row in rows:
        values = Text(short_values(row, names))
        if not progress.over:  # a row of two lines would push another one out
            values.no_wrap, values.overflow = True, "ellipsis"
        table.add_row(
            Text(row.name, style="bold" if best and row.name == best.name else ""),
            Text(row.state, style=STYLES.get(row.state, "")),
            f"{row.epochs}/{progress.epochs}",
            short_dice(row.dice),
            short_dice(row.best),
            values,
        )
    return table


# ---- Anywhere else ----


class _Lines:
    """A line for each trial that ends, and one now and then between them."""

    def __init__(self, stream: IO[str], progress: Callable[[], Progress], clock: Callable[[], float]) -> None:
        self._stream = stream
        self._progress = progress
        self._clock = clock
        self._last_at = clock()

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Write how it ended."""
        self.say(headline(self._progress(), self._clock()))

    def tick(self) -> None:
        """Write how far it is, if nothing was written for a while."""
        if self._clock() - self._last_at >= PROGRESS_EVERY_S:
            self.say(headline(self._progress(), self._clock()))

    def tell_end(self, row: Row) -> None:
        """Write what became of a trial."""
        progress = self._progress()
        self.say(f"{end_of(row, short_names(progress))}; {tail(progress, self._clock())}")

    def say(self, line: str) -> None:
        """Write a line."""
        self._stream.write(f"{line}\n")
        self._stream.flush()
        self._last_at = self._clock()
