"""Show a case: what `python -m mis.data show` does."""

import difflib
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mis.data.case import Case, DataSet
from mis.data.check.findings import Finding, errors
from mis.data.check.integrity import check_command, examine
from mis.data.layouts.recognise import read_data, recognise
from mis.data.phantom.write import is_phantom
from mis.data.pictures.animation import draw_slices
from mis.data.pictures.view import View, draw_planes
from mis.errors import MisError
from mis.params.data import DataParams

MOST_NAMED = 3
"""Cases that an error suggests."""
HIGHEST = 3
"""Folders above a file at which its data set is looked for."""


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
        print(f"error: {line}", file=sys.stderr)  # noqa: T201 - what is wrong is often looked for in the picture
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisError(f"the pictures need a folder that can be made: {error.strerror}", got=out) from None
    stem = re.sub(r"[^\w.-]+", "_", view.case)  # nnU-Net's index may name a case as it likes
    files = [out / f"{stem}.png"]
    draw_planes(view, files[0])
    if animated:
        files.append(out / f"{stem}.gif")
        draw_slices(view, files[1])
    return files


def read_view(name: str, data: DataSet, params: DataParams) -> View:
    """Read what is drawn of a case: its brain, whatever `params.crop` says.

    A case that errors keep out is drawn where its files can be brought to one grid.

    Raises:
        MisError: There is no such case, or there is nothing of it to draw.
    """
    case = find_case(name, data)
    examined = examine(case, data, params.model_copy(update={"crop": "brain"}))
    wrong = errors((*_named(case.id, data), *examined.findings))
    if examined.brain is None or examined.geometry is None:
        _refuse_errors(case.id, data, wrong)
        raise RuntimeError(f"case {case.id} has neither a brain nor an error")
    values = np.nan_to_num(examined.brain.values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return View.of(
        replace(examined.brain, values=values),
        examined.geometry,
        data.regions,
        case=case.id,
        source=f"{data.root.resolve().name} ({data.layout})",
        # The folder of one case, or of some, has no mark of its own.
        is_phantom=any(is_phantom(folder) for folder in (data.root, *data.root.resolve().parents[:2])),
        errors=tuple(map(str, wrong)),
    )


def find_root(name: str, own: Path) -> Path:
    """Return the data set that a case is of: where a path leads elsewhere, the nearest folder that is one.

    Args:
        name: See `find_case`.
        own: The data set's folder that is meant otherwise.
    """
    path = Path(name).expanduser()
    is_own = path.resolve().is_relative_to(own.resolve()) or (not path.is_absolute() and (own / name).exists())
    if path.exists() and not is_own:
        for folder in (path, *path.absolute().parents)[: HIGHEST + 1]:
            try:
                if folder.is_dir() and recognise(folder):
                    return folder
            except (MisError, OSError):  # none of the layouts, or more than one: further up
                continue
    return own


def find_case(name: str, data: DataSet) -> Case:
    """Return the case that is meant.

    Args:
        name: Its id; or the name of one of its files; or a path to one of them or to its folder, from here or
            from the data set's folder.
        data: Where it is from.

    Raises:
        MisError: There is none, or more than one, or one that errors keep out.
    """
    cases = (*data.cases, *data.unlabelled)
    if named := next((case for case in cases if case.id == name), None):
        return named
    _refuse_errors(name, data, _named(Path(name).name, data))
    meant = [case for case in cases if any(file.name == name for file in case.files)]
    if len(meant) != 1:  # the image and the label of some layouts have one name: still one case
        paths = [path.resolve() for path in (Path(name).expanduser(), data.root / name) if path.exists()]
        meant = [case for case in cases if any(_lies_in(case, path) for path in paths)]
    if len(meant) > 1:
        raise MisError(
            f"a folder must be that of one case, got {name} with {len(meant)}", do=f"name one, e.g. {meant[0].id}"
        )
    if not meant:
        raise MisError(f"{data.root} must have the case", got=name, do=_suggest(name, [case.id for case in cases]))
    return meant[0]


def _lies_in(case: Case, path: Path) -> bool:
    return any(file.resolve().is_relative_to(path) for file in case.files)


def _suggest(name: str, known: list[str]) -> str:
    """Return the names that may be meant: those that it is a part of, or else those that are like it."""
    part = [one for one in known if name.lower() in one.lower()]
    close = part or difflib.get_close_matches(Path(name).name, known, MOST_NAMED)
    if close:
        return f"did you mean {' or '.join(close[:MOST_NAMED])}?"
    return f"it has {len(known)}, e.g. {known[0]}" if known else "it has no case that can be read"


def _named(name: str, data: DataSet) -> list[Finding]:
    """Return what is wrong with a case's entry or files in the data set."""
    return [finding for finding in data.findings if finding.case == name]


def _refuse_errors(name: str, data: DataSet, findings: Iterable[Finding]) -> None:
    if wrong := errors(findings):
        raise MisError(
            f"case {name} must have no errors to be shown: {'; '.join(map(str, wrong))}",
            do=f"{check_command(data)} lists those of all cases",
        )
