import gzip
import shutil
from functools import partial

import pytest

from mis.data.check.findings import errors
from mis.data.layouts.brats import BRATS_2021, BRATS_2023, read_brats

CONVENTIONS = {"brats2021": BRATS_2021, "brats2023": BRATS_2023}


@pytest.fixture(params=CONVENTIONS)
def layout(request):
    return request.param


@pytest.fixture
def root(layout_roots, layout, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(layout_roots[layout], tmp_path / layout)


@pytest.fixture
def read(root, layout):
    return partial(read_brats, root, CONVENTIONS[layout])


def rules(data):
    return [(finding.rule, finding.case) for finding in data.findings]


def test_images_are_in_the_order_of_the_modalities(read, layout):
    for case in read().cases:
        assert [path.name for path in case.images] == [
            f"{case.id}{CONVENTIONS[layout].separator}{suffix}.nii.gz" for suffix in CONVENTIONS[layout].suffixes
        ]
        assert case.label.name.removesuffix(".nii.gz").endswith("seg")


def test_regions_are_those_of_the_challenge():
    assert BRATS_2021.regions == {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
    assert BRATS_2023.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def test_cases_may_lie_in_folders_of_grades(root, read):
    expected = [case.id for case in read().cases]
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    for folder, grade in zip(folders, ("HGG", "LGG", "HGG", "LGG"), strict=True):
        (root / grade).mkdir(exist_ok=True)
        folder.rename(root / grade / folder.name)
    (root / "survival_info.csv").write_text("Brats20ID,Age\n")
    data = read()
    assert sorted(case.id for case in data.cases) == expected
    assert data.findings == ()


def test_what_archives_leave_beside_is_passed_over(root, read):
    for path in list(root.rglob("*.nii.gz")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    (root / ".DS_Store").write_bytes(b"Bud1")
    assert (len(read().cases), read().findings) == (3, ())


def test_unpacked_files_are_read_and_both_kinds_of_one_are_told(read):
    case = read().cases[0]
    for path in case.images:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert rules(read()) == [("undeclared-file", case.id)] * 4
    for path in case.images:
        path.unlink()
    assert (len(read().cases), read().findings) == (3, ())


def test_a_missing_modality_is_found_and_the_other_cases_are_read(read):
    before = read().cases
    case = before[1]
    case.images[2].unlink()
    assert rules(read()) == [("missing-modality", case.id)]
    assert read().cases == tuple(other for other in before if other != case)
    assert len(read().cases) == 2


def test_a_label_alone_is_found(read):
    case = read().cases[1]
    for path in case.images:
        path.unlink()
    assert rules(read()) == [("missing-image", case.id)]


def test_a_case_without_a_label_beside_others_that_have_one_lacks_it(read):
    case = read().cases[1]
    case.label.unlink()
    assert (len(read().cases), len(read().unlabelled), rules(read())) == (2, 1, [("missing-label", case.id)])
    assert errors(read().findings)[0].trained_on


def test_a_case_in_a_folder_without_labels_is_one_to_predict(root, read):
    case = read().cases[1]
    case.label.unlink()
    folder = case.images[0].parent
    folder.rename(root / "ValidationData" / folder.name)
    assert (len(read().cases), len(read().unlabelled), rules(read())) == (2, 2, [])


def test_what_is_wrong_with_a_case_to_predict_does_not_matter_to_training(read):
    case = read().unlabelled[0]
    case.images[0].unlink()
    assert rules(read()) == [("missing-modality", case.id)]
    assert not read().findings[0].trained_on


def test_a_segmentation_of_one_s_own_is_no_label_where_no_case_has_one(read):
    case = read().unlabelled[0]
    shutil.copy(read().cases[0].label, case.images[0].with_name("synthseg.nii.gz"))
    assert (len(read().cases), len(read().unlabelled), rules(read())) == (3, 1, [("undeclared-file", "")])


def test_a_label_under_another_name_is_taken_with_a_warning(read):
    # BRATS 2020's training case 355 has W39_1998.09.19_Segm.nii.
    case = read().cases[1]
    case.label.rename(case.label.with_name("W39_1998.09.19_Segm.nii.gz"))
    assert rules(read()) == [("misnamed-label", case.id)]
    assert len(read().cases) == 3


def test_a_case_in_two_folders_is_found(root, read):
    case = read().cases[0]
    shutil.copytree(case.images[0].parent, root / "copy" / case.id)
    assert ("duplicate-name", case.id) in rules(read())


def test_a_file_of_something_else_is_found(read):
    case = read().cases[0]
    shutil.copy(case.images[0], case.images[0].with_name("dwi.nii.gz"))
    assert rules(read()) == [("undeclared-file", "")]


def test_a_stray_segmentation_in_a_flat_folder_is_nobodys(root, layout, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in root.rglob("*.nii.gz"):
        shutil.copy(path, flat / path.name)
    shutil.copy(next(flat.glob("*seg.nii.gz")), flat / "W39_Segm.nii.gz")
    data = read_brats(flat, CONVENTIONS[layout])
    lacking = next(iter(read_brats(root, CONVENTIONS[layout]).unlabelled)).id  # it stood in a folder of its own
    assert (len(data.cases), len(data.unlabelled)) == (3, 0)
    assert sorted(rules(data)) == [("missing-label", lacking), ("undeclared-file", "")]


def test_a_data_set_without_any_label_is_told(read):
    for case in read().cases:
        case.label.unlink()
    assert rules(read()) == [("unlabelled", "")]


def test_links_are_followed_and_those_that_go_round_are_not(root, read, tmp_path):
    case = read().cases[0]
    folder = case.label.parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(root)
    assert (len(read().cases), rules(read())) == (3, [])


def test_suffixes_may_be_in_capitals_and_the_packed_file_counts(read):
    case = read().cases[0]
    case.images[0].rename(str(case.images[0]).replace(".nii.gz", ".NII.GZ"))
    case.images[1].with_suffix("").write_bytes(b"cut short")
    assert read().cases[0].images[1] == case.images[1]
    assert len(read().cases) == 3
