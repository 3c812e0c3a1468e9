"""`python -m mis.data show`: which case is meant, and what is said where it cannot be shown."""

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mis.data.__main__ import main
from mis.data.layouts.recognise import read_data
from mis.data.pictures.show import find_case, find_root, read_view, show
from mis.errors import MisError
from mis.params.data import LAYOUTS
from mis.params.load import load_params

ROOT = Path(__file__).parents[3]


@pytest.fixture
def copy(tiny_root, tmp_path):
    """A data set that a test may spoil."""
    return shutil.copytree(tiny_root, tmp_path / "copy")


def kind(path):
    with Image.open(path) as image:
        return image.format


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_shows_the_same_patient(layout_roots, params, tmp_path, layout):
    data, first = read_data(layout_roots[layout]), read_data(layout_roots["msd"])
    view = read_view(data.cases[0].id, data, params.data)
    expected = read_view(first.cases[0].id, first, params.data)
    np.testing.assert_array_equal(view.grey, expected.grey)
    np.testing.assert_array_equal(view.masks, expected.masks)
    assert view.is_phantom
    assert view.source == f"{layout} ({layout})"
    files = show(data.cases[0].id, layout_roots[layout], params.data, tmp_path / "new" / "out")
    assert [file.name for file in files] == [f"{data.cases[0].id}.png", f"{data.cases[0].id}.gif"]
    assert sorted(files) == sorted((tmp_path / "new" / "out").iterdir())
    assert [kind(file) for file in files] == ["PNG", "GIF"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_case_without_a_label_is_shown(layout_roots, params, layout):
    data = read_data(layout_roots[layout])
    view = read_view(data.unlabelled[0].id, data, params.data)
    assert view.masks is None
    assert view.voxels == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_case_is_found_by_its_id_and_by_its_files(layout_roots, monkeypatch, layout):
    data = read_data(layout_roots[layout])
    monkeypatch.chdir(data.root.parent)
    for case in (*data.cases, *data.unlabelled):
        assert find_case(case.id, data) == case
        for file in case.files:
            names = [file.name, str(file), data.name(file), f"{layout}/{data.name(file)}"]
            assert [find_case(name, data) for name in names] == [case] * len(names)
        if layout.startswith("brats"):
            folder = case.images[0].parent.relative_to(data.root.parent)
            assert find_case(f"{folder}/", data) == case


def test_a_folder_with_many_cases_is_refused(tiny):
    with pytest.raises(MisError, match=r"one case, got imagesTr with 8; name one, e.g. BRATS_001"):
        find_case("imagesTr", tiny)


def test_a_file_of_another_data_set_is_not_taken_for_the_own_of_its_name(tiny, copy):
    with pytest.raises(MisError, match="must have the case"):
        find_case(str(copy / "imagesTr" / "BRATS_001.nii.gz"), tiny)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("brats_003", "did you mean BRATS_003?"),
        ("008", "did you mean BRATS_008?"),
        ("BRATS-004", "did you mean BRATS_004"),
        ("patient", "it has 9, e.g. BRATS_001"),
    ],
)
def test_an_unknown_case_gives_what_may_be_meant(tiny, name, hint):
    with pytest.raises(MisError) as refused:
        find_case(name, tiny)
    assert str(refused.value).startswith(f"{tiny.root} must have the case, got {name}; ")
    assert hint in str(refused.value)


def test_a_case_with_errors_is_shown_with_them(copy, params, tmp_path, capsys):
    image = nib.load(copy / "imagesTr" / "BRATS_002.nii.gz")
    voxels = np.array(image.dataobj)
    voxels[..., 1], voxels[..., 3] = 0, voxels[..., 2]
    nib.save(nib.Nifti1Image(voxels, image.affine), copy / "imagesTr" / "BRATS_002.nii.gz")
    files = show("BRATS_002", copy, params.data, tmp_path / "out")
    assert [kind(file) for file in files] == ["PNG", "GIF"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("error: imagesTr/BRATS_002.nii.gz")
    assert ["T1w is 0 everywhere" in said[0], "T2w is the same as T1gd" in said[1]] == [True, True]
    assert read_view("BRATS_002", read_data(copy), params.data).title == "BRATS_002   (2 errors)"
    assert read_view("BRATS_001", read_data(copy), params.data).title == "BRATS_001"


def test_a_label_with_other_values_is_told_and_the_image_shown(copy, params):
    label = copy / "labelsTr" / "BRATS_002.nii.gz"
    image = nib.load(label)
    nib.save(nib.Nifti1Image(np.array(image.dataobj) * 2, image.affine), label)
    view = read_view("BRATS_002", read_data(copy), params.data)
    assert view.masks is None
    assert "a label must have the values of its layout alone" in view.errors[0]


def test_a_case_with_a_voxel_that_is_no_number_is_shown(copy, params, tmp_path):
    image = nib.load(copy / "imagesTr" / "BRATS_002.nii.gz")
    voxels = np.array(image.dataobj, np.float32)
    voxels[5, 5, 5, 1] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), copy / "imagesTr" / "BRATS_002.nii.gz")
    view, whole = (read_view(name, read_data(copy), params.data) for name in ("BRATS_002", "BRATS_001"))
    assert len(view.errors) == 1
    assert view.grey[..., 1].std() > whole.grey[..., 1].std() / 2
    show("BRATS_002", copy, params.data, tmp_path / "out")


def test_a_case_of_which_there_is_nothing_to_draw_is_refused(copy, params, tmp_path):
    label = copy / "labelsTr" / "BRATS_002.nii.gz"
    image = nib.load(label)
    nib.save(nib.Nifti1Image(np.array(image.dataobj)[:-1], image.affine), label)
    with pytest.raises(MisError, match=r"case BRATS_002 .*the files of a case must have one shape.*; `python"):
        show("BRATS_002", copy, params.data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_a_case_that_lacks_its_label_says_so(layout_roots, params, tmp_path):
    root = shutil.copytree(layout_roots["brats2021"], tmp_path / "brats")
    case = read_data(root).cases[1]
    case.label.unlink()
    with pytest.raises(MisError, match="a case to train on must have a label"):
        read_view(str(case.images[0].parent), read_data(root), params.data)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_path_leads_to_its_own_data_set(layout_roots, copy, monkeypatch, layout):
    data = read_data(layout_roots[layout])
    case = data.cases[0]
    root = find_root(str(case.images[0]), copy)
    assert find_case(str(case.images[0]), read_data(root)).id == case.id
    assert read_view(str(case.images[0]), read_data(root), load_params(ROOT / "params.yaml").data).is_phantom
    assert find_root(case.id, copy) == copy
    monkeypatch.chdir(data.root)
    assert find_root(data.name(case.images[0]), copy) == (copy if layout == "msd" else root)
    assert find_root(str(case.images[0]), data.root) == data.root


def test_a_path_to_no_data_set_is_that_of_the_own(copy, tmp_path):
    (tmp_path / "notes.txt").touch()
    assert find_root(str(tmp_path / "notes.txt"), copy) == copy


def test_a_case_whose_file_is_missing_says_so(copy, params):
    (copy / "labelsTr" / "BRATS_003.nii.gz").unlink()
    with pytest.raises(MisError, match=r"case BRATS_003 must have no errors .*labelsTr/BRATS_003.nii.gz: a file that"):
        read_view("BRATS_003", read_data(copy), params.data)


def test_a_mark_in_either_file_makes_a_phantom(copy, params):
    (copy / "README.md").unlink()
    assert read_view("BRATS_001", read_data(copy), params.data).is_phantom
    index = copy / "dataset.json"
    index.write_text(index.read_text().replace("Synthetic phantom", "BraTS"))
    assert not read_view("BRATS_001", read_data(copy), params.data).is_phantom


def test_pictures_need_a_folder(tiny_root, params, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MisError, match="need a folder that can be made"):
        show("BRATS_001", tiny_root, params.data, tmp_path / "file")


# ---- The command ----


@pytest.fixture
def experiment(copy, tmp_path, monkeypatch):
    """A project whose data set is `copy`."""
    monkeypatch.delenv("MIS_ROOT", raising=False)
    assert copy.parent == tmp_path
    text = (ROOT / "params.yaml").read_text().replace("root: data/raw/phantom", "root: copy")
    (tmp_path / "params.yaml").write_text(text.replace("layout: auto", "layout: msd"))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_experiments_data_set_is_shown(experiment, capsys):
    assert main(["show", "BRATS_009"]) == 0
    pictures = [experiment / "results" / "show" / "copy" / f"BRATS_009.{kind}" for kind in ("png", "gif")]
    assert capsys.readouterr().out.split() == [str(path) for path in pictures]
    assert all(path.is_file() for path in pictures)


def test_another_data_set_is_shown_whatever_its_layout(experiment, layout_roots, capsys):
    arguments = ["show", "BraTS2021_00001", "--root", str(layout_roots["brats2021"]), "--out", "here", "--no-gif"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split() == ["here/BraTS2021_00001.png"]
    assert [path.name for path in (experiment / "here").iterdir()] == ["BraTS2021_00001.png"]


def test_what_cannot_be_shown_is_one_line_and_exit_code_2(experiment, capsys):
    (experiment / "copy" / "imagesTr" / "BRATS_001.nii.gz").write_bytes(gzip.compress(b"cut short"))
    for name, part in (("BRATS_001", "must be complete NIfTI"), ("BRATS_01", "did you mean BRATS_001")):
        assert main(["show", name]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = said.err.splitlines()
        assert line.startswith("error: ")
        assert part in line
    assert not (experiment / "results").exists()
