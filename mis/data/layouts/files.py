"""The NIfTI files of a folder: their names and suffixes, and what archives leave beside them."""

import re
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".nii.gz", ".nii")
"""The suffixes of a NIfTI file; where a file is there with both, the first counts."""

LEFT_BY_ARCHIVES = ("._", ".DS_Store", "__MACOSX", ".")
"""The beginnings of names that are no part of a data set: what macOS adds, and hidden files."""


def stem(path: Path) -> str:
    """Return a NIfTI file's name without its suffix.

    >>> stem(Path("a/BRATS_001.nii.gz")), stem(Path("b.c.nii"))
    ('BRATS_001', 'b.c')
    """
    return re.sub(r"(?i)(\.nii)?(\.gz)?$", "", path.name)


def is_volume(path: Path) -> bool:
    """Return whether a file is a NIfTI file of a data set, by its name."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(LEFT_BY_ARCHIVES)


def volumes(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the NIfTI files of a folder and of the folders below it, sorted by name.

    Links are followed, but for those that lead back to a folder in `above`, the resolved folders on the way here.
    """
    here = folder.resolve()
    for path in sorted(folder.iterdir(), key=_sort_key) if folder.is_dir() and here not in above else ():
        if path.name.startswith(LEFT_BY_ARCHIVES):
            continue
        if path.is_dir():
            yield from volumes(path, (*above, here))
        elif is_volume(path):
            yield path


def _sort_key(path: Path) -> tuple[str, bool]:
    """Return the key that files are sorted by: of two files of one stem the compressed one comes first."""
    return stem(path), not path.name.lower().endswith(SUFFIXES[0])


def find(path: Path) -> Path | None:
    """Return the NIfTI file of this name, or of this name with the other suffix; None where there is none."""
    for suffix in dict.fromkeys((path.name.removeprefix(stem(path)), *SUFFIXES)):
        try:
            if suffix and (other := path.with_name(stem(path) + suffix)).is_file():
                return other
        except (OSError, ValueError):  # a name that no file can have
            return None
    return None
