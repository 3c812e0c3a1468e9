import json
import shutil

import pytest

from mis.data.layouts.recognise import READERS, read_data, recognise
from mis.errors import MisError
from mis.params.data import LAYOUTS


def refused(root, layout="auto"):
    with pytest.raises(MisError) as error:
        read_data(root, layout)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_layout_that_a_parameter_names_can_be_read():
    assert set(READERS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_by_what_is_there(layout_roots, layout):
    assert recognise(layout_roots[layout]) == layout
    data = read_data(layout_roots[layout])
    assert (data.layout, len(data.cases), len(data.unlabelled)) == (layout, 3, 1)
    assert data.findings == ()
    assert read_data(layout_roots[layout], layout) == data


def test_a_data_set_that_is_missing_is_named(tmp_path):
    message = refused(tmp_path / "none")
    assert str(tmp_path / "none") in message
    assert "data.root" in message


def test_a_folder_that_has_no_layout_is_told_which_there_are(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    assert all(part in refused(tmp_path) for part in ("msd", "nnunet", "brats2021", "brats2023", str(tmp_path)))


def test_the_folder_above_is_told_where_the_data_set_is(layout_roots):
    assert f"give {layout_roots['msd']}" in refused(layout_roots["msd"].parent)


def test_two_layouts_in_one_folder_are_refused_and_either_can_be_named(layout_roots, tmp_path):
    root = shutil.copytree(layout_roots["brats2021"], tmp_path / "both")
    shutil.copytree(layout_roots["brats2023"], root, dirs_exist_ok=True)
    assert "brats2021 and brats2023" in refused(root)
    assert "data.layout" in refused(root)
    assert len(read_data(root, "brats2021").cases) == 3


def test_an_index_of_something_else_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "Task07", "tensorImageSize": "3D"}))
    assert "must have training (MSD) or channel_names (nnU-Net), got name, tensorImageSize" in refused(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_is_named_and_is_another_is_refused(layout_roots, layout):
    for other in LAYOUTS:
        if other != layout:
            refused(layout_roots[layout], other)


@pytest.mark.parametrize("name", ["../evil", "/evil", "site/1", "", ".hidden", "a\0b", "n" * 250])
def test_a_case_that_is_named_as_no_file_can_be_is_left_out(layout_roots, tmp_path, name):
    """Its record would be named after it."""
    root = shutil.copytree(layout_roots["nnunet"], tmp_path / "Dataset001")
    images = [f"imagesTr/BRATS_001_000{channel}.nii.gz" for channel in range(4)]
    entries = {name: {"images": images, "label": "labelsTr/BRATS_001.nii.gz"}}
    index = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(index | {"dataset": entries, "numTraining": 1}))
    data = read_data(root)
    assert data.cases == ()
    assert "case-name" in [finding.rule for finding in data.findings]
