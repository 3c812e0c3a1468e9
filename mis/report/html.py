"""The report: one page that needs nothing but its own file, its pictures beside it, and a page for cases in 3-D."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from matplotlib.figure import Figure

from mis import pages
from mis.files import new_folder
from mis.report import figures, scaling_figures, tables
from mis.report.results import Results, read_results
from mis.report.study.curves import trial_curves
from mis.report.study.drawable import Drawable
from mis.report.study.from_trials import study_of
from mis.report.study.pictures import PICTURES
from mis.report.viewer.page import PAGE as VIEWER
from mis.report.viewer.page import viewer_page
from mis.style import png

SEARCH_PICTURES = ("slice", "parallel_coordinates", "importances")
"""Those of a study's pictures that the report shows beside the learning curves."""

PAGE = "report.html"
TEMPLATE = "page.html.j2"
PHANTOM = "phantom"
"""The folder's name of the data set that the stage `phantom` makes."""


@dataclass(frozen=True)
class Picture:
    """A picture as the page embeds it."""

    name: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture itself, as a `data:` URI."""
        return f"data:image/png;base64,{b64encode(self.png).decode('ascii')}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the PNG's header."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")


def write_report(results: Path, output: Path, *, data_root: str) -> Path:
    """Write the report on what the other stages wrote.

    Args:
        results: The folder with `train/`, `tune/`, `evaluate/` and `scaling/`; nothing else is read.
        output: The folder for `report.html`, the pictures as PNG files, and `cases.html`, on which test cases are
            looked at in 3-D; what is there is replaced.
        data_root: The data set's folder as params.yaml names it; the page says so if it is the phantom's.

    Returns:
        The page.

    Raises:
        MisError: A file is missing or damaged; `output` is as it was.
    """
    read = read_results(results)
    pictures = draw(read)
    page = render(read, pictures, data_root)
    evaluation = read.evaluation
    scores = {case.name: f"mean Dice {tables.dice(case.mean)}" for case in evaluation.cases}
    with new_folder(output) as folder:
        for picture in pictures.values():
            (folder / f"{picture.name}.png").write_bytes(picture.png)
        (folder / PAGE).write_text(page, encoding="utf-8")
        if evaluation.volumes:
            viewer = viewer_page(evaluation.volumes, evaluation.regions, scores, phantom=is_phantom(data_root))
            (folder / VIEWER).write_text(viewer, encoding="utf-8")
    return output / PAGE


def is_phantom(data_root: str) -> bool:
    """Return whether a data set's folder, as params.yaml names it, is the phantom's."""
    return PurePosixPath(data_root).name == PHANTOM


def draw(results: Results) -> dict[str, Picture]:
    """Return the report's pictures by name; without those that have nothing to show."""
    trials = results.trials
    drawn: dict[str, Figure] = {"learning_curves": figures.learning_curves(results.history)}
    if any(trial.epochs for trial in trials):
        drawn["trials"] = trial_curves(trials)
    search = Drawable.of(study_of(trials))
    drawn |= {name: PICTURES[name](search) for name in search.figures if name in SEARCH_PICTURES}
    drawn["test_dice"] = figures.case_scores(results.evaluation.cases)
    drawn["speedup"] = scaling_figures.speedup(results.scaling.cells)
    drawn["timeline"] = scaling_figures.timeline(results.scaling.cells)
    return {name: Picture(name, png(figure)) for name, figure in drawn.items()}


def render(results: Results, pictures: Mapping[str, Picture], data_root: str) -> str:
    """Return the page's HTML; whatever comes from files is escaped."""
    values = {
        "data_root": data_root,
        "phantom": is_phantom(data_root),
        "folds": results.folds,
        "verdict": tables.verdict(results),
        "key_figures": tables.key_figures(results),
        "pictures": pictures,
        "sheets": [Picture(path.stem, path.read_bytes()) for path in results.evaluation.sheets],
        "viewer": VIEWER,
        "trials": tables.trials_table(results),
        "cases": tables.cases_table(results.evaluation),
        "speedups": tables.speedup_table(results.scaling),
        "joined": len(results.evaluation.cases) <= figures.JOINED,
        "terms": tables.terms_table(results.scaling),
        "rounds": len({measured.cell.round for measured in results.scaling.cells}),
        "regions": results.evaluation.regions,
        "gpus": "gpus" in results.measured_on["scaling"].get("machine", {}),
        "measured": {stage: tables.measured_line(facts) for stage, facts in results.measured_on.items()},
    }
    return pages.render(__package__, TEMPLATE, values)
