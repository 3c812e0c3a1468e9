"""A search's progress in words, one line each."""

from collections import Counter
from collections.abc import Mapping

from rich.text import Text

from mis.params.base import Scalar
from mis.tune.console.progress import Progress
from mis.tune.trial import Trial
from mis.words import counted, duration, joined, noun


def headline(progress: Progress, now: float) -> str:
    """Return how far a search is.

    Args:
        progress: The search.
        now: The clock, in seconds.
    """
    best, running, interrupted = progress.best, len(progress.running), len(progress.interrupted)
    trials = noun(len(progress.ended) if progress.total is None else _total(progress, progress.total), "trial")
    return f"study {progress.study}: " + joined(
        f"{_count(progress)} {trials} ended",
        f"{running} running" if running else "",
        f"{interrupted} interrupted" if interrupted else "",
        f"best Dice {short_dice(best.best_dice)} (trial {best.name}{_unless_ended(best)})" if best else "",
        duration(now - progress.begun_at),
        _left(progress, now),
    )


def tail(progress: Progress, now: float) -> str:
    """Return how far a search is in fewer words, for the end of a line."""
    best = progress.best
    best_dice = f"best {short_dice(best.best_dice)}" if best else ""
    if best and not best.state.has_ended:
        best_dice += f" (trial {best.name}{_unless_ended(best)})"
    return joined(f"{_count(progress)} ended", best_dice, _left(progress, now))


def end_of(trial: Trial, names: Mapping[str, str]) -> str:
    """Return what became of a trial.

    Args:
        trial: The trial.
        names: What each searched name is shown as.
    """
    dice = f"Dice {short_dice(trial.best_dice)} after {counted(trial.epochs, 'epoch')}" if trial.epochs else "no epoch"
    values = f" ({short_values(trial, names)})" if trial.values else ""
    error = f": {one_line(trial.error)}" if trial.error else ""
    return f"trial {trial.name} {trial.state}: {dice}, {duration(trial.elapsed_s)}{values}{error}"


def short_names(progress: Progress) -> dict[str, str]:
    """Return what each searched name is shown as: its last part, unless another one ends in the same."""
    names = dict.fromkeys(name for trial in progress.trials.values() for name in trial.values)
    last = {name: name.rpartition(".")[2] for name in names}
    shared = Counter(last.values())
    return {name: short if shared[short] == 1 else name for name, short in last.items()}


def short_values(trial: Trial, names: Mapping[str, str]) -> str:
    """Return a trial's values, as short as they can be told apart."""
    return one_line(" ".join(f"{names[name]}={_short(value)}" for name, value in trial.values.items()))


def short_dice(value: float | None) -> str:
    """Return a Dice as it is shown.

    >>> [short_dice(value) for value in (0.7125, float("nan"), None)]
    ['0.713', 'nan', '-']
    """
    return "-" if value is None else f"{value:.3f}"


def one_line(text: str) -> str:
    r"""Return a text as one line without control codes: Ray's errors are in colours.

    >>> one_line("\x1b[36mray::train()\x1b[39m\r\n  died [/b]")
    'ray::train() died [/b]'
    """
    plain = Text.from_ansi(" ".join(text.split())).plain
    return "".join(character for character in plain if character.isprintable())


def _count(progress: Progress) -> str:
    ended = len(progress.ended)
    return str(ended) if progress.total is None else f"{ended} of {_total(progress, progress.total)}"


def _total(progress: Progress, wanted: int) -> int:
    """Return how many trials a search will have: more than are wanted by now, where it has had more already."""
    return max(wanted, len(progress.trials))


def _unless_ended(best: Trial) -> str:
    """Return the state of the best trial where it is not among those that have ended."""
    return "" if best.state.has_ended else f", {best.state}"


def _left(progress: Progress, now: float) -> str:
    seconds = progress.seconds_left(now)
    return "" if seconds is None else f"about {duration(seconds)} left"


def _short(value: Scalar) -> str:
    """Return a value as it is shown.

    >>> [_short(value) for value in (0.00312345, 1e-5, 32, True, "group")]
    ['0.00312', '1e-05', '32', 'True', 'group']
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)
