"""Write a phantom: its cases, by several processes, and the marks by which its folder is known."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from mis.data.parallel import for_each
from mis.data.phantom.formats import FORMATS, PHANTOM_MARK, Volume, readme
from mis.data.phantom.grid import check_shape
from mis.data.phantom.scan import make_case
from mis.errors import MisError
from mis.files import new_folder, write_json
from mis.params.data import PhantomParams

INDEX, README = "dataset.json", "README.md"


def make_phantom(root: Path, params: PhantomParams, *, jobs: int, progress: bool = True) -> None:
    """Write a synthetic data set in the layout `params.layout`; a seed gives the same patients in each.

    The bytes written depend on `params` alone. `root` appears, or is replaced, once the data set is
    complete; what is left of a run that fails is removed.

    Args:
        root: The data set's folder; it may hold a phantom of any layout, which is replaced.
        params: How many cases, their shape, the seed and the layout.
        jobs: The number of processes that make cases, 1 or more.
        progress: Whether to show a progress bar.

    Raises:
        MisError: A parameter does not fit, or `root` holds something else than a phantom.
    """
    check_shape(params.shape)
    if params.seed < 0:
        raise MisError("phantom.seed must be 0 or more", got=params.seed)
    if jobs < 1:
        raise MisError("jobs must be 1 or more", got=jobs)
    # Where it is a link, the folder behind it is replaced: a rename is atomic on its disk alone.
    root = root.resolve()
    _check_replaceable(root)
    layout = FORMATS[params.layout]
    with new_folder(root) as folder:
        for name in layout.folders:
            (folder / name).mkdir()
        _write_cases(folder, params, jobs, progress)
        if layout.index is not None:
            write_json(folder / INDEX, layout.index(params))
        (folder / README).write_text(readme(params), encoding="utf-8")


def is_phantom(root: Path) -> bool:
    """Return whether README.md or dataset.json marks a data set's folder as a phantom."""
    return _text(root / README).startswith(PHANTOM_MARK) or PHANTOM_MARK in _text(root / INDEX)


def case_seed(seed: int, index: int) -> int:
    """Return the seed of one case of a data set, so that each can be made alone and in any order."""
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0])


def _write_cases(folder: Path, params: PhantomParams, jobs: int, progress: bool) -> None:
    numbers = range(params.cases + params.unlabelled)
    if jobs == 1:
        for index in tqdm(numbers, desc="phantom", unit="case", disable=not progress):
            _write_case(folder, params, index)
        return
    # A forked process may inherit a lock that another thread, e.g. TensorFlow's, holds for ever.
    pool = ProcessPoolExecutor(min(jobs, len(numbers)), mp_context=get_context("spawn"))
    for_each(partial(_write_case, folder, params), numbers, pool, description="phantom", progress=progress)


def _write_case(folder: Path, params: PhantomParams, index: int) -> None:
    image, label = make_case(params.shape, case_seed(params.seed, index))
    volumes = FORMATS[params.layout].volumes(1 + index, image, label if index < params.cases else None)
    for name, volume in volumes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(volume, path)


def _save(volume: Volume, path: Path) -> None:
    """Write a volume with 1 mm voxels, RAS; nibabel puts neither a time nor a name into the gzip header."""
    affine = np.eye(4)
    affine[:3, 3] = [-(n - 1) / 2 for n in volume.shape[:3]]
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _check_replaceable(root: Path) -> None:
    """Refuse to replace what may be somebody's data: only a phantom or an empty folder gives way."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if not _text(root / README).startswith(PHANTOM_MARK):  # a user who removes README.md protects the folder
        raise MisError("the phantom replaces only a phantom", got=root, do="name another folder, or remove this one")


def _text(path: Path) -> str:
    """Return a file's text, empty where there is no such file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
