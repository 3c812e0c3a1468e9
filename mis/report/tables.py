"""From results to what the page says: tables, a verdict, and captions, all as text."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from mis.report.results import Case, Evaluation, Results, best_epoch, region_names
from mis.scaling.comparison import TERMS, Comparison, epoch_terms
from mis.scaling.plan import MODE_NAMES
from mis.scaling.speedup import Speedup
from mis.track.names import VAL_DICE
from mis.tune.trial import Trial
from mis.words import counted, joined

NOTHING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it holds figures, which stand to the right, or sentences, which wrap."""

    title: str
    numeric: bool = True
    wraps: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table; the first cell names it.

    Attributes:
        cells: As many as there are columns.
        badge: A word that marks the line, e.g. "best".
    """

    cells: tuple[str, ...]
    badge: str = ""


@dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    foot: tuple[Line, ...] = ()


@dataclass(frozen=True)
class KeyFigure:
    """A figure to be seen first, with what it is and what it stands against."""

    value: str
    label: str
    note: str


def dice(value: float) -> str:
    """Return a Dice coefficient with three decimals.

    >>> dice(0.81902), dice(float("nan")) == NOTHING
    ('0.819', True)
    """
    return NOTHING if math.isnan(value) else f"{value:.3f}"


def seconds(value: float) -> str:
    """Return a duration; one decimal below 100 s.

    >>> seconds(29.91), seconds(1234.5)
    ('29.9 s', '1234 s')
    """
    if math.isnan(value):
        return NOTHING
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def times(value: float) -> str:
    """Return a speed-up, after the sign of multiplication.

    >>> times(1.944).removeprefix(TIMES)
    '1.94'
    """
    return NOTHING if math.isnan(value) else f"{TIMES}{value:.2f}"


def parameter(text: str) -> str:
    """Return a parameter's value, no longer than it is worth reading.

    >>> parameter("0.005176340429875837"), parameter("0.9995"), parameter("batch")
    ('0.005176', '0.9995', 'batch')
    """
    try:
        return text if len(text) <= 8 else f"{float(text):.4g}"
    except ValueError:
        return text


def trials_table(results: Results) -> Table:
    """Return the trials, the best first, those without a score last."""
    trials, best = results.trials, results.best_trial
    regions = region_names([name for trial in trials for name in trial.best], f"{VAL_DICE}_")
    searched = searched_names(trials)
    failed = any(trial.error for trial in trials)
    columns = (
        *(Column("trial", numeric=False), Column("state", numeric=False), Column("epochs"), Column("Dice")),
        *(Column(region) for region in regions),
        Column("time"),
        *(Column(name, numeric=_all_numbers(str(trial.values.get(name, "")) for trial in trials)) for name in searched),
        *([Column("error", numeric=False, wraps=True)] if failed else []),
    )
    lines = tuple(
        Line(
            (
                *(trial.name, str(trial.state), str(trial.epochs), dice(_dice_of(trial))),
                *(dice(trial.best.get(f"{VAL_DICE}_{region.lower()}", math.nan)) for region in regions),
                seconds(trial.elapsed_s),
                *(parameter(str(trial.values.get(name, ""))) or NOTHING for name in searched),
                *([trial.error or NOTHING] if failed else []),
            ),
            badge="best" if trial is best else "",
        )
        for trial in sorted(trials, key=lambda trial: (-trial.score, trial.number))
    )
    return Table(columns, lines)


def _dice_of(trial: Trial) -> float:
    return math.nan if trial.best_dice is None else trial.best_dice


def searched_names(trials: Sequence[Trial]) -> list[str]:
    """Return the dotted names of the parameters that were searched."""
    return list(dict.fromkeys(name for trial in trials for name in trial.values))


def cases_table(evaluation: Evaluation) -> Table:
    """Return the test cases, and below them the means.

    With a single region there is no mean over regions to show.
    """
    regions = evaluation.regions
    several = len(regions) > 1
    columns = (
        Column("case", numeric=False),
        *([Column("mean of regions")] if several else []),
        *(Column(region) for region in regions),
        Column("FLAIR threshold, WT"),
    )

    def cells(name: str, average: float, scores: Mapping[str, float], threshold: float) -> tuple[str, ...]:
        over_regions = [dice(average)] if several else []
        return (name, *over_regions, *(dice(scores[region]) for region in regions), dice(threshold))

    lines = tuple(Line(cells(case.name, case.mean, case.dice, case.threshold_dice_wt)) for case in evaluation.cases)
    foot = Line(
        cells(
            "mean",
            _mean(case.mean for case in evaluation.cases),
            region_means(evaluation.cases),
            _mean(case.threshold_dice_wt for case in evaluation.cases),
        )
    )
    return Table(columns, lines, (foot,) if lines else ())


def region_means(cases: Sequence[Case]) -> dict[str, float]:
    """Return the mean Dice of each region over the cases, without those that have none."""
    regions = cases[0].dice if cases else ()
    return {region: _mean(case.dice[region] for case in cases) for region in regions}


def speedup_table(scaling: Comparison) -> Table:
    """Return the speed-ups; what all modes have in common, one device, stands once."""
    titles = ("devices", "elapsed time", "speed-up", "lowest to highest", "efficiency", "device-hours", "in use")
    speedups = scaling.speedups
    target = any(speedup.target_s is not None for speedup in speedups)
    columns = (
        Column("mode", numeric=False),
        *(Column(title) for title in titles),
        *([Column("target Dice after")] if target else []),
        Column("cold start before"),
    )
    shown = sorted((speedup for speedup in speedups if speedup.devices > 1), key=lambda speedup: speedup.devices)
    lines = [_speedup_line(speedup, target=target) for speedup in [*speedups[:1], *shown]]
    return Table(columns, tuple(lines))


def _speedup_line(speedup: Speedup, *, target: bool) -> Line:
    several = speedup.devices > 1
    reached = seconds(math.nan if speedup.target_s is None else speedup.target_s)
    return Line(
        (
            MODE_NAMES[speedup.mode] if several else "reference",
            str(speedup.devices),
            seconds(speedup.elapsed_s),
            times(speedup.speedup),
            f"{times(speedup.speedup_min)} to {times(speedup.speedup_max)}" if several else NOTHING,
            f"{speedup.efficiency:.0%}",
            f"{speedup.device_hours:.3g}",
            f"{speedup.utilisation:.0%}",
            *([reached] if target else []),
            seconds(speedup.cold_s),
        )
    )


def terms_table(scaling: Comparison) -> Table:
    """Return what the seconds of an epoch go into, by the number of devices of a trial."""
    columns = (Column("devices of a trial"), *(Column(term) for term in TERMS), Column("sum"))
    lines = []
    for devices, terms in epoch_terms(scaling.cells).items():
        values = [*terms.values(), sum(terms.values())]
        lines.append(Line((str(devices), *(f"{value:.2f} s" for value in values))))
    return Table(columns, tuple(lines))


def key_figures(results: Results) -> list[KeyFigure]:
    """Return the figures to be seen first."""
    evaluation = results.evaluation
    means = region_means(evaluation.cases)
    threshold = _mean(case.threshold_dice_wt for case in evaluation.cases)
    figures = [
        KeyFigure(
            dice(evaluation.val_dice),
            "best validation Dice",
            _model_of(results),
        ),
        *(
            KeyFigure(
                dice(value),
                f"test Dice, {region}",
                f"FLAIR threshold: {dice(threshold)}" if region == "WT" else counted(len(evaluation.cases), "case"),
            )
            for region, value in means.items()
        ),
    ]
    return figures + [
        KeyFigure(
            times(speedup.speedup),
            MODE_NAMES[speedup.mode],
            f"{speedup.devices} devices, ideal {TIMES}{speedup.devices}",
        )
        for speedup in _widest(results.scaling)
    ]


def _model_of(results: Results) -> str:
    if results.evaluation.model == "tune":
        return "model of the search"
    return "model of the training" if results.folds is None else "of one fold's model"


def verdict(results: Results) -> str:
    """Return what came out, in one paragraph made from the figures."""
    tuned = "search"
    trained = "single training with the parameters as they stand"
    if results.folds is not None:
        trained = f"ensemble of {results.folds} folds with the parameters as they stand"
    phrases = {trained: _training_phrase(results), tuned: _search_phrase(results)}
    better, other = (tuned, trained) if results.evaluation.model == "tune" else (trained, tuned)
    sentences = (
        f"The best model is that of the {better}: {phrases[better]}.",
        _test_sentence(results.evaluation),
        f"The {other} comes to a {phrases[other]}.",
        _scaling_sentence(results.scaling),
    )
    return " ".join(sentences)


def _training_phrase(results: Results) -> str:
    if results.folds is not None:
        scores = results.evaluation.out_of_fold
        regions = ", ".join(f"{region} {dice(value)}" for region, value in scores.items() if region)
        mean = dice(scores.get("", math.nan))
        return f"Dice of {mean} ({regions}) out of fold, each case by the model that was not trained on it"
    best = max((epoch[VAL_DICE] for epoch in results.history if not math.isnan(epoch[VAL_DICE])), default=math.nan)
    return (
        f"validation Dice of {dice(best)} at epoch {best_epoch(results.history) or NOTHING} of {len(results.history)}"
    )


def _search_phrase(results: Results) -> str:
    best, trials = results.best_trial, counted(len(results.trials), "trial")
    if best is None:
        return f"validation Dice in none of its {trials}"
    epochs = counted(len(best.history), "epoch")
    return f"validation Dice of {dice(best.score)} in {epochs} of trial {best.name}, the best of {trials}"


def _test_sentence(evaluation: Evaluation) -> str:
    if not evaluation.cases:
        return "No case was tested."
    means = ", ".join(f"{region} {dice(value)}" for region, value in region_means(evaluation.cases).items())
    threshold = dice(_mean(case.threshold_dice_wt for case in evaluation.cases))
    return (
        f"On {counted(len(evaluation.cases), 'test case')}, which no training has seen, its mean Dice is {means}; "
        f"the best threshold on FLAIR reaches WT {threshold} on the same.{_lesion_sentence(evaluation)}"
    )


def _lesion_sentence(evaluation: Evaluation) -> str:
    if not evaluation.lesions:
        return ""
    means = ", ".join(f"{region} {dice(value)}" for region, (value, _) in evaluation.lesions.items())
    false = ", ".join(f"{region} {count:.2g}" for region, (_, count) in evaluation.lesions.items())
    return f" Lesion by lesion its Dice is {means}, with so many false lesions a case: {false}."


def _scaling_sentence(scaling: Comparison) -> str:
    widest = _widest(scaling)
    if not widest:
        return "Scaling was measured on one device alone: there is no speed-up to report."
    trials = counted(len(scaling.cells[0].trials), "trial")
    reference_s = next(speedup.elapsed_s for speedup in scaling.speedups if speedup.devices == 1)
    *others, last = (f"{times(speedup.speedup)} by {MODE_NAMES[speedup.mode]}" for speedup in widest)
    modes = f"{', '.join(others)} and {last}" if others else last
    slower = f"; below {TIMES}1, more devices take longer" if any(speedup.speedup < 1 for speedup in widest) else ""
    return (
        f"On {widest[0].devices} devices in place of one, which needs {seconds(reference_s)} for {trials}, "
        f"the speed-up is {modes}{slower}."
    )


def _widest(scaling: Comparison) -> list[Speedup]:
    """Return each mode's speed-up on the most devices; nothing where one device is all."""
    speedups = scaling.speedups
    widest = max(speedup.devices for speedup in speedups)
    return [speedup for speedup in speedups if speedup.devices == widest > 1]


def measured_line(facts: Mapping[str, Any]) -> str:
    """Return what a stage was measured on, as a caption has it.

    Args:
        facts: The content of measured_on.json.

    >>> measured_line({"machine": {"cpu": "EPYC", "cores": "2", "memory_gib": "23.5"}, "versions": {"keras": "3.15.1"},
    ...                "git_commit": "de9122828f6c-dirty", "measured_at": "2026-11-23T07:37:41+00:00"})
    'EPYC, 2 cores, no GPU, 23.5 GiB memory · Keras 3.15.1 · commit de91228 with local changes · 2026-11-23'
    """
    machine, numbers = facts.get("machine", {}), facts.get("versions", {})
    cores = counted(int(machine["cores"]), "core") if "cores" in machine else ""
    memory = f"{machine['memory_gib']} GiB memory" if "memory_gib" in machine else ""
    names = {"keras": "Keras", "tensorflow": "TensorFlow", "ray": "Ray"}
    packages = (f"{name} {numbers[key]}" for key, name in names.items() if key in numbers)
    commit, _, dirty = str(facts.get("git_commit", "unknown")).partition("-")
    parts = (
        joined(machine.get("cpu", ""), cores, _gpus(machine.get("gpus", "")), memory),
        joined(*packages),
        f"commit {commit[:7]}{' with local changes' if dirty else ''}",
        str(facts.get("measured_at", ""))[:10],
    )
    return " · ".join(part for part in parts if part)


def _gpus(text: str) -> str:
    """Return the GPUs, those of a kind together.

    >>> _gpus("V100, 16384 MiB; V100, 16384 MiB")
    '2 GPUs V100, 16384 MiB'
    """
    kinds = Counter(text.split("; ")) if text else {}
    return joined(*(f"{counted(count, 'GPU')} {kind}" for kind, count in kinds.items())) or "no GPU"


def _mean(values: Iterable[float]) -> float:
    """Return the mean of those that are numbers; NaN where there is none."""
    there = [value for value in values if not math.isnan(value)]
    return mean(there) if there else math.nan


def _all_numbers(texts: Iterable[str]) -> bool:
    return all(text.replace(".", "").replace("-", "").replace("+", "").replace("e", "").isdecimal() for text in texts)
