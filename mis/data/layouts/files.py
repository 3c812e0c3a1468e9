"""Files of a data set as they are found: names, suffixes, and what archives leave beside them."""

import re
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".nii.gz", ".nii")
"""Of a NIfTI file; where both are there, the first counts."""

LEFT_BY_ARCHIVES = ("._", ".DS_Store", "__MACOSX", ".")
"""How names begin that no data set has: what macOS adds, and hidden files."""


def stem(path: Path) -> str:
    """Return a NIfTI file's name without its suffix.

    >>> stem(Path("a/BRATS_001.nii.gz")), stem(Path("b.c.nii"))
    ('BRATS_001', 'b.c')
    """
    return re.sub(r"(?i)(\.nii)?(\.gz)?$", "", path.name)


def is_volume(path: Path) -> bool:
    """Tell a NIfTI file that is part of a data set, by its name."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(LEFT_BY_ARCHIVES)


def volumes(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the NIfTI files of a folder, those in folders below it too, in order.

    Links are followed, but for those that lead back to a folder `above`.
    """
    way = (*above, folder.resolve())
    for path in sorted(folder.iterdir(), key=_rank) if folder.is_dir() and way[-1] not in above else ():
        if path.name.startswith(LEFT_BY_ARCHIVES):
            continue
        if path.is_dir():
            yield from volumes(path, way)
        elif is_volume(path):
            yield path


def _rank(path: Path) -> tuple[str, bool]:
    """Return what files are sorted by: of two kinds of the same file the compressed one comes first."""
    return stem(path), not path.name.lower().endswith(SUFFIXES[0])


def find(path: Path) -> Path | None:
    """Return a NIfTI file under this name, compressed or not; None where there is none."""
    for suffix in dict.fromkeys((path.name.removeprefix(stem(path)), *SUFFIXES)):
        try:
            if suffix and (other := path.with_name(stem(path) + suffix)).is_file():
                return other
        except (OSError, ValueError):  # a name that no file can have
            return None
    return None
