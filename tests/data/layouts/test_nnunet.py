import json
import shutil

import pytest

from mis.data.layouts.nnunet import read_nnunet
from mis.errors import MisError


@pytest.fixture
def root(layout_roots, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(layout_roots["nnunet"], tmp_path / "Dataset001")


def edit(root, **changes):
    index = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({key: value for key, value in (index | changes).items() if value}))


def rules(root):
    return [(finding.rule, finding.case) for finding in read_nnunet(root).findings]


def refused(root):
    with pytest.raises(MisError) as error:
        read_nnunet(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_channels_are_brought_to_the_order_of_the_modalities(root):
    # The phantom's channels are T1, T1ce, T2, Flair.
    for case in read_nnunet(root).cases:
        assert [path.name[-11:-7] for path in case.images] == ["0003", "0000", "0001", "0002"]


@pytest.mark.parametrize(
    "names",
    [
        ("FLAIR", "T1w", "T1gd", "T2w"),
        ("T2-FLAIR", "t1", "T1 CE", "t2"),
        ("t2f", "t1n", "t1c", "t2w"),
    ],
)
def test_modalities_have_many_names(root, names):
    edit(root, channel_names={str(number): name for number, name in enumerate(names)})
    assert [path.name[-11:-7] for path in read_nnunet(root).cases[0].images] == ["0000", "0001", "0002", "0003"]


@pytest.mark.parametrize(
    "names", [("CT",), ("FLAIR", "T1w", "T1gd"), ("FLAIR", "T1w", "T1w", "T2w"), ("FLAIR", "T1w", "T1gd", "ADC")]
)
def test_other_channels_are_refused(root, names):
    edit(root, channel_names={str(number): name for number, name in enumerate(names)})
    assert all(part in refused(root) for part in ("dataset.json", "four modalities", names[0]))


@pytest.mark.parametrize(
    ("labels", "regions"),
    [
        (
            {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
            {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)},
        ),
        (
            {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
            {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)},
        ),
        (
            {"background": 0, "NCR": 1, "ED": 2, "ET": 3},
            {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
        ),
        ({"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}, {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}),
    ],
)
def test_regions_come_from_the_labels_names(root, labels, regions):
    edit(root, labels=labels)
    data = read_nnunet(root)
    assert (dict(data.regions), data.label_values) == (regions, (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ({"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3, "ignore": 4}, "part of the whole tumor, got ignore"),
        ({"background": 0, "ED": 1, "NCR": 2, "ET": 3, "resection cavity": 4}, "got resection cavity"),
        ({"background": 0, "WT": [[1, 2, 3]], "TC": [2, 3], "ET": 3}, "whole numbers"),
        ({"background": 1, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3}, "background must be 0"),
        ({"background": 0, "liver": 1, "cancer": 2}, "must be the regions"),
        ({"background": 0, "edema": 1, "enhancing tumor": 2}, "must be the regions"),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 4}, "without a gap"),
        ({"background": 0, "whole tumor": [1, 2], "tumor core": [2, 3], "enhancing tumor": 3}, "must be the regions"),
        ({"background": 0, "edema": "one"}, "whole numbers"),
        (["background", "edema"], "must map names"),
    ],
)
def test_labels_that_are_no_tumour_are_refused(root, labels, part):
    edit(root, labels=labels)
    assert part in refused(root)


@pytest.mark.parametrize("key", ["channel_names", "labels", "numTraining", "file_ending"])
def test_a_key_that_nnunet_needs_is_missed(root, key):
    edit(root, **{key: None})
    assert f"must have {key}" in refused(root)


def test_another_file_format_is_refused(root):
    edit(root, file_ending=".nrrd")
    assert "file_ending must be .nii.gz or .nii, got .nrrd" in refused(root)


def test_a_missing_channel_is_found_once(root):
    (root / "imagesTr" / "BRATS_002_0001.nii.gz").unlink()
    assert rules(root) == [("missing-modality", "BRATS_002")]
    assert [case.id for case in read_nnunet(root).cases] == ["BRATS_001", "BRATS_003"]


def test_an_image_without_a_label_is_found(root):
    (root / "labelsTr" / "BRATS_002.nii.gz").unlink()
    assert rules(root) == [("missing-label", "BRATS_002")]


def test_a_label_without_an_image_is_found(root):
    shutil.copy(root / "labelsTr" / "BRATS_002.nii.gz", root / "labelsTr" / "BRATS_010.nii.gz")
    assert rules(root) == [("missing-image", "BRATS_010")]


def test_another_number_of_cases_is_found(root):
    edit(root, numTraining=5)
    assert rules(root) == [("case-count", "")]


def test_a_file_without_a_channel_number_is_found(root):
    shutil.copy(root / "imagesTr" / "BRATS_002_0001.nii.gz", root / "imagesTr" / "BRATS_002.nii.gz")
    assert rules(root) == [("undeclared-file", "")]


def test_cases_that_the_index_names_are_read(root):
    entries = {
        f"case{number}": {
            "images": [f"imagesTr/BRATS_00{number}_000{channel}.nii.gz" for channel in range(4)],
            "label": f"./labelsTr/BRATS_00{number}.nii.gz",
        }
        for number in (1, 2, 3)
    }
    edit(root, dataset=entries)
    data = read_nnunet(root)
    assert (data.findings, [case.id for case in data.cases]) == ((), ["case1", "case2", "case3"])
    entries["case1"]["images"][2] = "../elsewhere.nii.gz"
    entries["case2"]["label"] = "labelsTr/none.nii.gz"
    entries["case3"]["images"].pop()
    edit(root, dataset=entries)
    assert {("outside-path", "case1"), ("missing-file", "case2"), ("missing-modality", "case3")} <= set(rules(root))


@pytest.mark.parametrize("keys", ["abcd", "1234"])
def test_channels_are_numbered_from_0(root, keys):
    edit(root, channel_names=dict(zip(keys, ("FLAIR", "T1w", "T1gd", "T2w"), strict=True)))
    assert "must have the keys 0, 1, 2, 3" in refused(root)


def test_a_channel_more_is_found(root):
    shutil.copy(root / "imagesTr" / "BRATS_002_0001.nii.gz", root / "imagesTr" / "BRATS_002_0004.nii.gz")
    assert ("extra-channel", "BRATS_002") in rules(root)


def test_a_case_to_train_on_may_not_be_one_to_predict(root):
    for channel in range(4):
        shutil.copy(root / f"imagesTr/BRATS_002_000{channel}.nii.gz", root / "imagesTs")
    assert ("duplicate-name", "BRATS_002") in rules(root)


def test_the_examinations_of_a_patient_are_known(root):
    for folder in ("imagesTr", "labelsTr"):
        for path in sorted((root / folder).iterdir()):
            number = int(path.name[6:9])
            path.rename(path.with_name(path.name.replace(f"BRATS_{number:03d}", f"BraTS-GLI-00005-{number:03d}")))
    data = read_nnunet(root)
    assert [case.patient for case in data.cases] == ["BraTS-GLI-00005"] * 3


def test_a_key_dataset_of_another_kind_is_refused(root):
    edit(root, dataset=["a", "b"])
    assert "dataset must map names" in refused(root)
