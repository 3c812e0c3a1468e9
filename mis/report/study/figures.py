"""The figures of a study, as files."""

from collections.abc import Sequence
from pathlib import Path

import optuna

from mis.files import new_file
from mis.report.study.drawable import Drawable
from mis.tune.trial import Trial


def write_figures(study: optuna.Study, folder: Path, trials: Sequence[Trial] = ()) -> list[Path]:
    """Write a study's figures: PNG pictures, and one interactive page.

    The page stands alone: it has all figures in it, and needs neither a server nor a network. What cannot
    be drawn of a study, such as the importances of one trial, is left out.

    Args:
        study: The validation Dice, to be maximized, is its first objective; it may have a second one, to be
            minimized. Their names are the study's metric names, or "Dice" and "second objective".
        folder: Where the files are written. It is made if it is not there.
        trials: The trials with their histories, for the learning curves.

    Returns:
        The files that were written: `curves.png` where trials are given; of `history.png`, `parallel_coordinates.png`,
        `importances.png`, `slice.png` and `pareto_front.png` those that can be drawn; then `study.html`. None if no
        trial has completed.
    """
    drawable = Drawable.of(study)
    if not drawable.figures:
        return []
    from mis.report.study import curves, page, pictures
    from mis.style import png

    contents = {f"{name}.png": png(pictures.PICTURES[name](drawable)) for name in drawable.figures}
    if any(trial.history for trial in trials):
        contents = {"curves.png": png(curves.trial_curves(trials)), **contents}
    contents["study.html"] = page.html(drawable).encode()
    for name, content in contents.items():
        with new_file(folder / name) as unfinished:
            unfinished.write_bytes(content)
    return [folder / name for name in contents]
