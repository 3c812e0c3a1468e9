"""Figures in a Markdown page, between two marks, of a commit that is known."""

from pathlib import Path
from typing import Any

from mis.errors import MisError
from mis.files import new_file
from mis.settings import load_settings
from mis.track.provenance import git_commit, measured_on

END = "<!-- end of figures -->"


def clean_commit(root: Path) -> str:
    """Return the commit that is checked out; anything uncommitted is refused."""
    commit = git_commit(root)
    if commit.endswith("-dirty"):
        raise MisError("the figures must be those of a commit", got=commit, do="commit your changes first")
    return commit


def measured_where(root: Path, details: str) -> str:
    """Return the machine, details of what was measured, the versions, the commit and the day, as a line."""
    on: dict[str, Any] = dict(measured_on(load_settings(start=root)))
    hardware, versions = on["machine"], on["versions"]
    return (
        f"{hardware['cores']} cores ({hardware['cpu']}), {details}; Keras {versions['keras']}, TensorFlow "
        f"{versions['tensorflow']}, Ray {versions['ray']}; commit `{on['git_commit'][:10]}`, {on['measured_at'][:10]}."
    )


def write_figures(page: Path, program: str, text: str) -> None:
    """Put lines between the marks of a program."""
    begin = f"<!-- figures: written by {program} -->"
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    if not mark:
        raise MisError(f"{page.name} must have the line {begin}")
    _, _, after = rest.partition(END)
    with new_file(page) as unfinished:
        unfinished.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")
