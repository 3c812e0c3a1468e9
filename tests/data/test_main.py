"""`python -m mis.data check` and `phantom` as a user types them; the other commands have files of their own."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from mis.data.__main__ import main
from mis.data.layouts.recognise import read_data
from mis.params.data import LAYOUTS


@pytest.fixture(autouse=True)
def here(project, monkeypatch):
    """The working directory is a project's."""
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def root(layout_roots, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(layout_roots["msd"], tmp_path / "Task01")


def zero(path):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros_like(np.asarray(image.dataobj)), image.affine), path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_clean_data_set_is_told_to_be_clean(layout_roots, here, capsys, layout):
    assert main(["check", str(layout_roots[layout])]) == 0
    out, err = capsys.readouterr()
    assert f"({layout}): 3 cases with a label, 1 without: nothing was found" in out
    assert "check" in err, "a bar"
    assert sorted(path.name for path in (here / "results" / "check").iterdir()) == [
        "cases.csv",
        "check.html",
        "check.json",
        "findings.csv",
    ]


def test_errors_are_told_and_the_exit_code_is_2(root, here, capsys):
    (root / "labelsTr" / "BRATS_001.nii.gz").write_bytes(b"")
    zero(root / "labelsTr" / "BRATS_002.nii.gz")
    assert main(["check", str(root), "--out", str(here / "tables")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error: labelsTr/BRATS_001.nii.gz: a file must be complete NIfTI, got")
    assert lines[1].startswith("warning: labelsTr/BRATS_002.nii.gz: a label should mark a tumour")
    assert lines[2].endswith("3 cases with a label, 1 without: 1 error, 1 warning")
    rows = list(csv.DictReader((here / "tables" / "findings.csv").read_text().splitlines()))
    assert [row["rule"] for row in rows] == ["unreadable", "empty-label"]
    assert json.loads((here / "tables" / "check.json").read_text())["verdict"] == "1 error, 1 warning"


def test_warnings_alone_are_no_error(root):
    zero(root / "labelsTr" / "BRATS_002.nii.gz")
    assert main(["check", str(root)]) == 0


def test_of_many_findings_a_terminal_sees_some_and_the_table_all(root, here, capsys):
    for number in range(30):
        (root / "imagesTr" / f"extra_{number}.nii.gz").write_bytes(b"")
    assert main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.count("warning: imagesTr/extra") == 20
    assert "... 30 in all: 30 undeclared-file" in out
    assert len((here / "results" / "check" / "findings.csv").read_text().splitlines()) == 31


def test_the_parameters_are_those_of_the_project(root, capsys):
    for folder in ("imagesTr", "labelsTr"):
        path = root / folder / "BRATS_002.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 2, 1])), path)
    assert main(["check", str(root)]) == 0
    assert main(["check", str(root), "--set", "data.other_spacing=refuse"]) == 2
    assert "1 x 1 x 2 mm, not 1 x 1 x 1 mm" in capsys.readouterr().out


def test_without_a_folder_it_is_that_of_the_parameters(here, root, capsys):
    (here / "data" / "raw").mkdir(parents=True)
    (here / "data" / "raw" / "phantom").symlink_to(root)
    assert main(["check"]) == 0
    assert "3 cases" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["none"], ["."], ["--set", "data.layout=brats2021", "."]])
def test_what_is_no_data_set_is_one_line(arguments, capsys):
    assert main(["check", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_of_what_is_not_understood_there_is_a_table_too(root, here, capsys):
    assert main(["check", str(root)]) == 0
    index = root / "dataset.json"
    index.write_text("{")
    assert main(["check", str(root)]) == 2
    assert "must be JSON" in capsys.readouterr().err
    table = json.loads((here / "results" / "check" / "check.json").read_text())
    assert (table["verdict"], [finding["rule"] for finding in table["findings"]]) == ("1 error", ["not-understood"])
    assert "must be JSON" in (here / "results" / "check" / "check.html").read_text()


def test_an_index_may_begin_with_the_mark_that_windows_adds(root):
    index = root / "dataset.json"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    assert main(["check", str(root)]) == 0


@pytest.mark.slow
def test_a_phantom_is_made_in_the_layout_that_is_asked_for(here, capsys):
    tiny = ["--set", "phantom.cases=1", "--set", "phantom.unlabelled=1", "--set", "phantom.shape=[16, 16, 16]"]
    for layout in (None, *LAYOUTS):
        assert main(["phantom", "made", *tiny, *(["--layout", layout] if layout else [])]) == 0
        data = read_data(here / "made")
        assert (data.layout, len(data.cases), len(data.unlabelled)) == (layout or "msd", 1, 1)
        assert f"made: 2 cases in the layout {layout or 'msd'}" in capsys.readouterr().out
    assert main(["check", "made"]) == 0


def test_a_phantom_replaces_only_a_phantom(here, capsys):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("")
    assert main(["phantom", "mine"]) == 2
    assert "replaces only a phantom" in capsys.readouterr().err
    assert (here / "mine" / "thesis.txt").exists()
