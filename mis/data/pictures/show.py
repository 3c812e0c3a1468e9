"""`python -m mis.data show`: find a case, and draw it."""

import difflib
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mis.data.case import Case, DataSet
from mis.data.check.case import check_case
from mis.data.check.findings import Finding, errors
from mis.data.check.wording import check_command, sentence
from mis.data.layouts.recognise import read_data, recognise
from mis.data.phantom.write import is_phantom
from mis.data.pictures.animation import draw_slices
from mis.data.pictures.view import View, draw_planes
from mis.errors import MisError
from mis.params.data import DataParams

MOST_NAMED = 3
"""Most cases that an error suggests."""
LEVELS_UP = 3
"""How many folders above a file may be the data set that it is of."""


def show(name: str, root: Path, params: DataParams, out: Path, *, animated: bool = True) -> list[Path]:
    """Draw a case as its data set has it.

    Args:
        name: The case's id, or a path to its folder or to one of its files.
        root: The data set's folder.
        params: Its layout, and the spacing in which it is drawn.
        out: The pictures' folder.
        animated: Whether its axial slices are written as well, as a GIF.

    Returns:
        The files that were written.

    Raises:
        MisError: There is no such case, there is nothing of it to draw, or `out` cannot be a folder.
    """
    view = read_view(name, read_data(root, params.layout), params)
    for line in view.errors:
        print(f"error: {line}", file=sys.stderr)  # noqa: T201 - the cause of an error is often seen in the picture
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisError(f"the pictures need a folder that can be made: {error.strerror}", got=out) from None
    stem = re.sub(r"[^\w.-]+", "_", view.case)  # in nnU-Net's dataset.json a case may have any name
    files = [out / f"{stem}.png"]
    draw_planes(view, files[0])
    if animated:
        files.append(out / f"{stem}.gif")
        draw_slices(view, files[1])
    return files


def read_view(name: str, data: DataSet, params: DataParams) -> View:
    """Read the brain of a case, cropped whatever `params.crop` says.

    A case with errors is drawn where its files can be brought to one grid.

    Raises:
        MisError: There is no such case, or there is nothing of it to draw.
    """
    case = find_case(name, data)
    checked = check_case(case, data, params.model_copy(update={"crop": "brain"}))
    wrong = errors((*_findings_of(case.id, data), *checked.findings))
    if checked.brain is None or checked.geometry is None:
        _refuse_errors(case.id, data, wrong)
        raise RuntimeError(f"case {case.id} has neither a brain nor an error")
    values = np.nan_to_num(checked.brain.values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return View.of(
        replace(checked.brain, values=values),
        checked.geometry,
        data.regions,
        case=case.id,
        source=f"{data.root.resolve().name} ({data.layout})",
        # The mark of a phantom is in the data set's folder, which may be above a folder of some of its cases.
        is_phantom=any(is_phantom(folder) for folder in (data.root, *data.root.resolve().parents[:2])),
        errors=tuple(sentence(finding) for finding in wrong),
    )


def find_root(name: str, default: Path) -> Path:
    """Return the folder of the data set that a case is of.

    Args:
        name: The case, see `find_case`.
        default: The folder of the project's data set. It is returned but where `name` is a path that is not in it: then
            the nearest folder above the path that is a data set is.
    """
    path = Path(name).expanduser()
    is_in_default = path.resolve().is_relative_to(default.resolve())
    is_in_default |= not path.is_absolute() and (default / name).exists()
    if path.exists() and not is_in_default:
        for folder in (path, *path.absolute().parents)[: LEVELS_UP + 1]:
            try:
                if folder.is_dir() and recognise(folder):
                    return folder
            except (MisError, OSError):  # in no layout, or in several: look further up
                continue
    return default


def find_case(name: str, data: DataSet) -> Case:
    """Return the case of a name or a path.

    Args:
        name: The case's id; or the name of one of its files; or a path to one of them or to its folder, from the
            working directory or from the data set's folder.
        data: The data set.

    Raises:
        MisError: There is no such case, there are several, or it has errors that keep it out.
    """
    cases = (*data.cases, *data.unlabelled)
    if same_id := next((case for case in cases if case.id == name), None):
        return same_id
    _refuse_errors(name, data, _findings_of(Path(name).name, data))
    matches = [case for case in cases if any(file.name == name for file in case.files)]
    if len(matches) != 1:  # several cases have files of this name, or none: it may be a path
        paths = [path.resolve() for path in (Path(name).expanduser(), data.root / name) if path.exists()]
        matches = [case for case in cases if any(_has_file_in(case, path) for path in paths)]
    if len(matches) > 1:
        raise MisError(
            f"a folder must be that of one case, got {name} with {len(matches)}", do=f"name one, e.g. {matches[0].id}"
        )
    if not matches:
        raise MisError(f"{data.root} must have the case", got=name, do=_suggest(name, [case.id for case in cases]))
    return matches[0]


def _has_file_in(case: Case, path: Path) -> bool:
    """Return whether a path is one of the case's files, or a folder with one of them."""
    return any(file.resolve().is_relative_to(path) for file in case.files)


def _suggest(name: str, known: list[str]) -> str:
    """Return what an error suggests: cases whose names contain this one, else cases with a similar name."""
    containing = [case for case in known if name.lower() in case.lower()]
    close = containing or difflib.get_close_matches(Path(name).name, known, MOST_NAMED)
    if close:
        return f"did you mean {' or '.join(close[:MOST_NAMED])}?"
    return f"it has {len(known)}, e.g. {known[0]}" if known else "it has no case that can be read"


def _findings_of(name: str, data: DataSet) -> list[Finding]:
    """Return the findings about a case that were made when the data set's folder was read."""
    return [finding for finding in data.findings if finding.case == name]


def _refuse_errors(name: str, data: DataSet, findings: Iterable[Finding]) -> None:
    """Raise an error where there are errors among the findings about a case."""
    if wrong := errors(findings):
        raise MisError(
            f"case {name} must have no errors to be shown: {'; '.join(sentence(finding) for finding in wrong)}",
            do=f"{check_command(data)} lists those of all cases",
        )
