from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mis.data.phantom import write
from mis.data.phantom.formats import PHANTOM_MARK
from mis.data.phantom.scan import make_case
from mis.data.phantom.write import case_seed, is_phantom, make_phantom
from mis.errors import MisError
from mis.files import DiskFullError
from mis.params.data import LAYOUTS, PhantomParams

PARAMS = PhantomParams(layout="msd", cases=3, unlabelled=2, shape=(24, 20, 18), seed=5)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "Task01"
    make_phantom(root, PARAMS, jobs=1, progress=False)
    return root


def test_files_hold_what_make_case_returns(root):
    image, label = make_case(PARAMS.shape, case_seed(PARAMS.seed, 1))
    assert np.array_equal(nib.load(root / "imagesTr/BRATS_002.nii.gz").get_fdata(dtype=np.float32), image)
    assert np.array_equal(np.asarray(nib.load(root / "labelsTr/BRATS_002.nii.gz").dataobj), label)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path, layout):
    params = PARAMS.model_copy(update={"layout": layout})
    make_phantom(tmp_path / "one", params, jobs=1, progress=False)
    make_phantom(tmp_path / "two", params, jobs=2, progress=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_gives_other_cases(root, tmp_path):
    make_phantom(tmp_path / "other", PARAMS.model_copy(update={"seed": 6}), jobs=1, progress=False)
    same = contents(root).items() & contents(tmp_path / "other").items()
    assert not same


def test_a_phantom_is_replaced_and_nothing_else_is_left(tmp_path):
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    make_phantom(tmp_path / "root", PARAMS.model_copy(update={"cases": 1}), jobs=1, progress=False)
    assert len(list((tmp_path / "root/imagesTr").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize(("old", "new"), [*pairwise(LAYOUTS), (LAYOUTS[-1], LAYOUTS[0])])
def test_a_phantom_of_one_layout_is_replaced_by_one_of_another(tmp_path, old, new):
    for name, layout in (("root", old), ("root", new), ("fresh", new)):
        make_phantom(tmp_path / name, PARAMS.model_copy(update={"layout": layout}), jobs=1, progress=False)
    assert contents(tmp_path / "root") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_readme_marks_the_phantom_and_says_what_it_is(tmp_path, layout):
    make_phantom(tmp_path / "root", PARAMS.model_copy(update={"layout": layout}), jobs=1, progress=False)
    text = (tmp_path / "root/README.md").read_text()
    assert text.startswith(PHANTOM_MARK)
    assert all(part in text for part in ("no patient data", layout, "seed 5", "3 cases with a label, 2 without"))


def test_a_phantom_whose_readme_was_taken_away_is_protected_and_still_a_phantom(tmp_path):
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    (tmp_path / "root/README.md").unlink()
    with pytest.raises(MisError, match="replaces only a phantom"):
        make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    assert is_phantom(tmp_path / "root")


def test_a_link_to_the_folder_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk", target_is_directory=True)
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    assert (tmp_path / "root").is_symlink()
    assert (tmp_path / "disk/dataset.json").is_file()


def fail_at_the_third(monkeypatch):
    save, calls = write._save, []

    def failing(volume, path):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save(volume, path)

    monkeypatch.setattr(write, "_save", failing)


def test_a_make_that_fails_leaves_nothing(tmp_path, monkeypatch):
    fail_at_the_third(monkeypatch)
    with pytest.raises(DiskFullError, match="got none left; make space"):
        make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_make_that_fails_leaves_the_old_phantom(tmp_path, monkeypatch):
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    before = contents(tmp_path / "root")
    fail_at_the_third(monkeypatch)
    with pytest.raises(DiskFullError, match="got none left; make space"):
        make_phantom(tmp_path / "root", PARAMS.model_copy(update={"seed": 6}), jobs=1, progress=False)
    assert contents(tmp_path) == {f"root/{name}": data for name, data in before.items()}


def test_a_rename_that_fails_brings_the_old_phantom_back(tmp_path, monkeypatch):
    make_phantom(tmp_path / "root", PARAMS, jobs=1, progress=False)
    before = contents(tmp_path / "root")
    rename = Path.rename

    def failing(self, target):
        if self.name == ".root.unfinished":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        make_phantom(tmp_path / "root", PARAMS.model_copy(update={"seed": 6}), jobs=1, progress=False)
    assert contents(tmp_path) == {f"root/{name}": data for name, data in before.items()}


@pytest.mark.slow
def test_a_failure_in_another_process_leaves_nothing(tmp_path, monkeypatch):
    # A shape that check_shape would refuse here fails in the processes instead.
    monkeypatch.setattr(write, "check_shape", lambda _shape: None)
    params = PARAMS.model_copy(update={"shape": (24, 20, 8)})
    with pytest.raises(MisError, match="at least 16 voxels"):
        make_phantom(tmp_path / "root", params, jobs=2, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "Synthetic phantom"),
        ("dataset.json", '{"name": "BRATS", "description": "Gliomas segmentation"}'),
        ("README.md", "Patients of ours; for tests there is the Synthetic phantom"),
    ],
)
def test_what_is_no_phantom_is_not_replaced(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(MisError, match="replaces only a phantom"):
        make_phantom(tmp_path, PARAMS, jobs=1, progress=False)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "jobs", "message"),
    [
        ({"shape": (48, 15, 40)}, 1, r"at least 16 voxels in each axis, got \(48, 15, 40\)"),
        ({"seed": -1}, 1, "seed must be 0 or more, got -1"),
        ({}, 0, "jobs must be 1 or more, got 0"),
    ],
)
def test_params_that_do_not_fit_are_refused(tmp_path, change, jobs, message):
    with pytest.raises(MisError, match=message):
        make_phantom(tmp_path / "root", PARAMS.model_copy(update=change), jobs=jobs, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_every_case_of_a_data_set_has_its_own_seed():
    seeds = {case_seed(seed, index) for seed in range(20) for index in range(50)}
    assert len(seeds) == 1000
