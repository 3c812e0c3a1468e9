import json
import shutil

import pytest

from mis.data.layouts import MSD_MODALITIES, MSD_REGIONS, read_msd
from mis.errors import MisError


@pytest.fixture
def root(tiny_root, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(tiny_root, tmp_path / "Task01")


def edit(root, **changes):
    index = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(index | changes))


def refused(root):
    with pytest.raises(MisError) as error:
        read_msd(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_case_is_there_with_its_files(tiny, tiny_root):
    assert [case.id for case in tiny.cases] == [f"BRATS_{number:03d}" for number in range(1, 9)]
    assert [case.id for case in tiny.unlabelled] == ["BRATS_009"]
    for case in tiny.cases:
        assert case.patient == case.id
        assert case.images == (tiny_root / "imagesTr" / f"{case.id}.nii.gz",)
        assert case.label == tiny_root / "labelsTr" / f"{case.id}.nii.gz"
    assert tiny.unlabelled[0].label is None


def test_modalities_labels_and_regions_are_those_of_brats(tiny):
    assert tiny.modalities == MSD_MODALITIES == ("FLAIR", "T1w", "T1gd", "T2w")
    assert tiny.label_values == (0, 1, 2, 3)
    assert tiny.regions == MSD_REGIONS == {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}


def test_the_real_index_is_read(root):
    # What stands in the dataset.json of the archive: lower case, and keys that nobody needs.
    edit(root, modality={"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, relase="2.0 04/05/2018", numTest=266)
    assert len(read_msd(root).cases) == 8


def test_no_unlabelled_cases_are_fine(root):
    edit(root, test=[])
    assert read_msd(root).unlabelled == ()
    index = json.loads((root / "dataset.json").read_text())
    del index["test"]
    (root / "dataset.json").write_text(json.dumps(index))
    assert read_msd(root).unlabelled == ()


def test_a_data_set_that_is_missing_is_named(tmp_path):
    message = refused(tmp_path / "none")
    assert str(tmp_path / "none") in message
    assert "data.root" in message


def test_a_folder_without_an_index_is_named(root):
    (root / "dataset.json").unlink()
    message = refused(root)
    assert str(root) in message
    assert "dataset.json" in message


@pytest.mark.parametrize("content", [b"", b"{", b'{"training": [', b"\xff\xfe\x00", b"NaN,"])
def test_an_index_that_is_no_json_is_named(root, content):
    (root / "dataset.json").write_bytes(content)
    assert str(root / "dataset.json") in refused(root)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "T1gd"}}, ("modality must be 0 FLAIR", "'2': 'T1gd'}")),
        ({"modality": {"0": "T1w", "1": "FLAIR", "2": "T1gd", "3": "T2w"}}, ("modality must be 0 FLAIR", "'0': 'T1w'")),
        ({"modality": None}, ("modality must be",)),
        ({"modality": ["FLAIR", "T1w", "T1gd", "T2w"]}, ("modality must be", "['FLAIR'")),
        ({"labels": {"0": "background", "1": "tumour"}}, ("labels must be 0 background, 1 edema", "'1': 'tumour'}")),
        # BraTS 2023 has other meanings for the same values: taken for MSD's, TC would hold the edema.
        (
            {"labels": {"0": "background", "1": "non-enhancing tumor", "2": "edema", "3": "enhancing tumour"}},
            ("labels must be 0 background, 1 edema",),
        ),
        ({"labels": None}, ("labels must be",)),
        ({"training": []}, ("training must list at least one case", "[]")),
        ({"training": None}, ("training must list at least one case",)),
        ({"training": {"image": "a"}}, ("training must list",)),
        ({"training": ["./imagesTr/BRATS_001.nii.gz"]}, ("must name an image and a label", "BRATS_001")),
        ({"training": [{"label": "./labelsTr/BRATS_001.nii.gz"}]}, ("must name an image and a label", "BRATS_001")),
        ({"training": [{"image": "./imagesTr/BRATS_001.nii.gz"}]}, ("must have a label", "BRATS_001")),
        ({"training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": ""}]}, ("must have a label", "BRATS_001")),
        ({"training": [{"image": "../a.nii.gz", "label": "b"}]}, ("must stay in the data set", "../a.nii.gz")),
        ({"training": [{"image": "/etc/passwd", "label": "b"}]}, ("must stay in the data set", "/etc/passwd")),
        ({"training": [{"image": "imagesTr", "label": "b"}]}, ("image must exist", "imagesTr")),
        ({"training": [{"image": 5, "label": "b"}]}, ("image must exist", "5")),
        ({"test": ["./imagesTs/none.nii.gz"]}, ("image must exist", "none.nii.gz")),
        ({"test": None}, ("test",)),
    ],
)
def test_an_index_that_is_not_as_the_layout_has_it_is_refused(root, changes, parts):
    edit(root, **changes)
    message = refused(root)
    assert all(part in message for part in ("dataset.json", *parts)), message


def test_an_index_that_is_a_list_is_refused(root):
    (root / "dataset.json").write_text("[]")
    assert "must hold one JSON object, got list" in refused(root)


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_file_that_is_missing_is_named_with_its_case(root, folder):
    (root / folder / "BRATS_003.nii.gz").unlink()
    message = refused(root)
    assert str(root / folder / "BRATS_003.nii.gz") in message
    assert ("label of BRATS_003" in message) == (folder == "labelsTr")


def test_a_case_that_is_named_twice_is_refused(root):
    entries = json.loads((root / "dataset.json").read_text())["training"]
    edit(root, training=[*entries, entries[2]])
    assert "BRATS_003 twice" in refused(root)


def test_a_case_that_is_labelled_and_unlabelled_is_refused(root):
    edit(root, test=["./imagesTr/BRATS_002.nii.gz"])
    assert "BRATS_002 twice" in refused(root)
