"""What a person sees of a search while it runs: a live table on a terminal, plain lines anywhere else."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import IO, Final, TextIO, cast

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mis.track.names import EPOCH_S
from mis.tune.console.progress import Heard, Progress
from mis.tune.console.text import end_of, headline, one_line, short_dice, short_names, short_values, tail
from mis.tune.trial import Trial, TrialState

MOST_ENDED: Final = 5
"""Ended trials in the table while the search runs."""

MOST_AT_THE_END: Final = 15
"""Trials in the table that stays."""

PROGRESS_EVERY_S: Final = 60.0
"""Between two plain lines at least, if no trial ends."""

STYLES: Final = {
    TrialState.RUNNING: "cyan",
    TrialState.INTERRUPTED: "dim",
    TrialState.COMPLETED: "green",
    TrialState.STOPPED: "yellow",
    TrialState.DIVERGED: "magenta",
    TrialState.FAILED: "red",
}


class StudyConsole:
    """Shows a search from `with` to its end.

    One thread calls it. `show` writes nothing to a terminal while a trial runs, so that one that is slow, or held with
    Ctrl-S, does not hold the search.

    Args:
        study: The search's name.
        total: Trials that it will have, those of earlier sessions included; None if nobody knows.
        concurrent: How many run at once.
        epochs: The most epochs that a trial has.
        ended: Trials that have ended in earlier sessions, in the order of their starts.
        hours_left: After so many hours the search ends, from now; None if it has no such budget.
        stream: Where it is written: standard error by default.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        study: str,
        *,
        total: int | None,
        concurrent: int,
        epochs: int,
        ended: Iterable[Trial] = (),
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
            trials={trial.number: trial for trial in ended},
            heard={},
        )
        self._view = _view(stream or sys.stderr, lambda: self._progress, clock)

    def __enter__(self) -> "StudyConsole":
        self._view.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress = self._progress.leave()
        self._view.stop()

    def show(self, trial: Trial) -> None:
        """Show a trial as it is now: at its start, after each epoch, at its end; a repetition changes nothing."""
        before, heard = self._progress.trials.get(trial.number), self._progress.heard.get(trial.number)
        epoch_s = heard.epoch_s if heard else None
        # Seconds of an epoch are not taken from the clock: a trial may pause.
        if before is not None and trial.epochs > before.epochs:
            epoch_s = trial.last.get(EPOCH_S)
        self._progress = self._progress.put(trial, Heard(self._clock(), epoch_s))
        if not trial.state.has_ended:
            self._view.tick()
        elif before is None or (before.state, before.error) != (trial.state, trial.error):
            self._view.show_end(trial)

    def say(self, line: str) -> None:
        """Write a line that stays, above the table."""
        self._view.say(one_line(line))


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
        """The encoding of the stream."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        with self._to_nobody_if_gone():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        with self._to_nobody_if_gone():
            self._stream.flush()

    @contextmanager
    def _to_nobody_if_gone(self) -> Iterator[None]:
        """Where the stream cannot be written to, send it to nobody, what is in its buffer too.

        What stayed in the buffer would fail once more when Python ends, with exit code 120.
        """
        try:
            yield
        except OSError:
            with suppress(OSError):  # a stream that is no file has no number
                nobody = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nobody, self._stream.fileno())
                os.close(nobody)


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
        """Draw the table from now on."""
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Draw the last table, which stays."""
        self._live.stop()

    def tick(self) -> None:
        """Do nothing: the thread draws."""

    def show_end(self, trial: Trial) -> None:
        """Write why a trial failed: the table has no room for it."""
        if trial.error:
            self.say(end_of(trial, short_names(self._progress())))

    def say(self, line: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(line))

    def _draw(self) -> Group:
        progress = self._progress()  # once: it is another one a moment later
        head = Text(headline(progress, self._clock()), style="bold")
        if progress.over:
            trials = [*progress.ended, *progress.interrupted][:MOST_AT_THE_END]
        else:
            width, height = self._console.size
            room = height - len(head.wrap(self._console, width)) - 3  # the table's head, its rule, and a line to spare
            trials = [*progress.running, *progress.ended[:MOST_ENDED]][: max(room, 1)]
        return Group(head, _table(trials, progress)) if trials else Group(head)


def _table(trials: Iterable[Trial], progress: Progress) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("trial", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("epoch", "Dice", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("values")
    names, best = short_names(progress), progress.best
    for trial in trials:
        values = Text(short_values(trial, names))
        if not progress.over:  # a row of two lines would push another one out
            values.no_wrap, values.overflow = True, "ellipsis"
        table.add_row(
            Text(trial.name, style="bold" if best and trial.number == best.number else ""),
            Text(str(trial.state), style=STYLES[trial.state]),
            f"{trial.epochs}/{progress.epochs}",
            short_dice(trial.dice),
            short_dice(trial.best_dice),
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
        """Write how the search has ended."""
        self.say(headline(self._progress(), self._clock()))

    def tick(self) -> None:
        """Write how far it is, if nothing was written for a while."""
        if self._clock() - self._last_at >= PROGRESS_EVERY_S:
            self.say(headline(self._progress(), self._clock()))

    def show_end(self, trial: Trial) -> None:
        """Write what became of a trial."""
        progress = self._progress()
        self.say(f"{end_of(trial, short_names(progress))}; {tail(progress, self._clock())}")

    def say(self, line: str) -> None:
        """Write a line to the stream at once."""
        self._stream.write(f"{line}\n")
        self._stream.flush()
        self._last_at = self._clock()
