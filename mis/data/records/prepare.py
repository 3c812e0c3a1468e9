"""Records for a command: those of the pipeline where their parameters fit, else others made beside them."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Literal, overload

from filelock import FileLock

from mis.data.records.index import INDEX
from mis.data.records.reader import read_records
from mis.errors import MisError
from mis.params.data import DataParams
from mis.settings import Settings, cores

REFUSED = Path("results/check")
"""The folder of the tables of a data set that was checked or refused, in the workspace."""


@overload
def find_records(params: DataParams, settings: Settings, *, make: Literal[True] = True) -> Path: ...
@overload
def find_records(params: DataParams, settings: Settings, *, make: Literal[False]) -> Path | None: ...


def find_records(params: DataParams, settings: Settings, *, make: bool = True) -> Path | None:
    """Return the folder of the records that were made with these parameters; make them if need be.

    The records of the pipeline are in `data/records`, and `dvc repro` makes them. Those made here are beside them,
    under a name that stands for the parameters and for the files of the data set, so that they are never confused.

    Args:
        params: What they must be made with.
        settings: The machine.
        make: Whether they are made where there are none.

    Returns:
        None where there are none and `make` is false.

    Raises:
        MisError: There are no records, and no data set to make them from.
    """
    try:
        return read_records(settings.records, params).folder
    except MisError:
        root = settings.workspace / params.root
        if not root.is_dir() or not (settings.records / INDEX).is_file():
            raise
        folder = settings.records.with_name(f"{settings.records.name}-{_name(params, root)}")
        if not (folder / INDEX).is_file() and not make:
            return None
        with FileLock(folder.with_name(f".{folder.name}.lock")):  # another process may be making the same
            if not (folder / INDEX).is_file():
                text = f"{settings.records} has records for other parameters: those for these are made in {folder}"
                print(text, file=sys.stderr)  # noqa: T201 - it takes a while
                make_records(params, settings.workspace, folder)
        return read_records(folder, params).folder


def _name(params: DataParams, root: Path) -> str:
    """Return a name for these parameters and the data set's files as they are now: 12 digits of a hash."""
    from mis.data.layouts.recognise import read_data

    data = read_data(root, params.layout)
    files = sorted(file for case in data.cases for file in case.files)
    states = [[data.name(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    content = {"params": params.model_dump(mode="json"), "files": states}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def make_records(params: DataParams, workspace: Path, folder: Path) -> None:
    """Make the records of a data set, and print a summary to stderr.

    Args:
        params: The data set, and what its records shall be.
        workspace: The folder that `data.root` starts at.
        folder: The folder of the records.

    Raises:
        MisError: See `mis.data.records.writer.write_records`.
    """
    from mis.data.layouts.recognise import read_data
    from mis.data.records.summary import summary
    from mis.data.records.writer import write_records
    from mis.data.versions.hashing import content_hash
    from mis.quiet import import_tensorflow

    data = read_data(workspace / params.root, params.layout)
    # Not the hash of dvc.lock, which may be of other files: it is written after a stage, and one stage makes what the
    # next one reads.
    data_hash = content_hash(workspace, params.root) if (workspace / ".dvc").is_dir() else None
    import_tensorflow()  # takes seconds: a folder that is no data set has been refused by now
    records = write_records(data, params, folder, jobs=cores(), data_hash=data_hash, refused=workspace / REFUSED)
    print(*summary(records), sep="\n", file=sys.stderr)  # noqa: T201
