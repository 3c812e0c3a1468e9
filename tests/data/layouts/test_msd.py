import gzip
import json
import shutil

import pytest

from mis.data.case import MODALITIES
from mis.data.layouts.msd import MSD_REGIONS, read_msd
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
    assert MODALITIES == ("FLAIR", "T1w", "T1gd", "T2w")
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
        ({"test": None}, ("test",)),
        ({"test": [["a.nii.gz"]]}, ("must be the name of an image", "a.nii.gz")),
        ({"training": [{"image": ["a"], "label": "b"}]}, ("must name an image and a label", "['a']")),
        ({"training": [{"image": "a", "label": ["b"]}]}, ("must name its label", "['b']")),
    ],
)
def test_an_index_that_is_not_as_the_layout_has_it_is_refused(root, changes, parts):
    edit(root, **changes)
    message = refused(root)
    assert all(part in message for part in ("dataset.json", *parts)), message


def test_an_index_that_is_a_list_is_refused(root):
    (root / "dataset.json").write_text("[]")
    assert "must hold one JSON object, got list" in refused(root)


def found(root):
    """Return (rule, case, file, value) of each finding."""
    return [(finding.rule, finding.case, finding.file, finding.value) for finding in read_msd(root).findings]


def test_a_clean_data_set_has_no_findings(root):
    assert found(root) == []


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_file_that_is_missing_is_found_and_the_others_are_read(root, folder):
    (root / folder / "BRATS_003.nii.gz").unlink()
    assert found(root) == [("missing-file", "BRATS_003", f"{folder}/BRATS_003.nii.gz", "no such file")]
    assert [case.id for case in read_msd(root).cases] == [f"BRATS_{n:03d}" for n in range(1, 9) if n != 3]


def test_an_unlabelled_file_that_is_missing_is_found(root):
    (root / "imagesTs" / "BRATS_009.nii.gz").unlink()
    assert [finding[:3] for finding in found(root)] == [("missing-file", "BRATS_009", "imagesTs/BRATS_009.nii.gz")]


@pytest.mark.parametrize("name", ["../a.nii.gz", "/etc/passwd", "imagesTr/../../b.nii"])
def test_a_path_that_leaves_the_data_set_is_found(root, name):
    entries = json.loads((root / "dataset.json").read_text())["training"]
    edit(root, training=[*entries[:-1], entries[-1] | {"image": name}])
    assert ("outside-path", name) in [(finding.rule, finding.value) for finding in read_msd(root).findings]
    assert len(read_msd(root).cases) == 7


@pytest.mark.parametrize("entry", [{"label": ""}, {"label": None}])
def test_an_entry_without_a_label_is_found(root, entry):
    entries = json.loads((root / "dataset.json").read_text())["training"]
    edit(root, training=[entries[0] | entry, *entries[1:]])
    assert ("missing-label", "BRATS_001", "dataset.json", "no label in its entry") in found(root)


def test_a_case_that_is_named_twice_is_found(root):
    entries = json.loads((root / "dataset.json").read_text())["training"]
    edit(root, training=[*entries, entries[2]], numTraining=9)
    assert found(root) == [("duplicate-name", "BRATS_003", "dataset.json", "twice")]


def test_a_case_that_is_labelled_and_unlabelled_is_found(root):
    edit(root, test=["./imagesTr/BRATS_002.nii.gz"])
    assert ("duplicate-name", "BRATS_002", "dataset.json", "twice") in found(root)


def test_a_count_that_is_wrong_is_found(root):
    edit(root, numTraining=484)
    assert found(root) == [("case-count", "", "dataset.json", "numTraining 484 and 8 cases")]


def test_a_file_that_nobody_names_is_found(root):
    shutil.copy(root / "imagesTr" / "BRATS_001.nii.gz", root / "imagesTr" / "BRATS_100.nii.gz")
    assert found(root) == [("undeclared-file", "", "imagesTr/BRATS_100.nii.gz", "a file of no case")]


def test_what_archives_leave_beside_is_passed_over(root):
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        for case in list((root / folder).iterdir()):
            (root / folder / f"._{case.name}").write_bytes(b"\0\5\x16\7")
        (root / folder / ".DS_Store").write_bytes(b"Bud1")
    (root / "._dataset.json").write_bytes(b"\0\5\x16\7")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._BRATS_001.nii.gz").write_bytes(b"")
    assert found(root) == []
    assert len(read_msd(root).cases) == 8


def test_files_that_were_unpacked_or_packed_are_found_under_their_other_suffix(root):
    packed = root / "imagesTr" / "BRATS_004.nii.gz"
    (root / "imagesTr" / "BRATS_004.nii").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert found(root) == []
    case = next(case for case in read_msd(root).cases if case.id == "BRATS_004")
    assert case.images[0].name == "BRATS_004.nii"
