"""Every fault that a data set can have is planted in a clean one, and found: by its rule, at its case and file."""

import csv
import gzip
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from mis.data.check.data_set import check_data_set
from mis.data.check.duplicates import find_duplicates
from mis.data.check.findings import WARNINGS
from mis.data.check.tables import write_tables
from mis.data.check.wording import RULES, sentence
from mis.data.layouts.recognise import read_data
from mis.errors import MisError
from mis.params.data import LAYOUTS


def checked(root, params, **changes):
    changed = params.override({f"data.{name}": value for name, value in changes.items()}).data
    return check_data_set(read_data(root), changed, jobs=2, progress=False)


def found(root, params, **changes):
    """Return (severity, rule, case, file) of each finding."""
    return [
        (finding.severity, finding.rule, finding.case, finding.file)
        for finding in checked(root, params, **changes).findings
    ]


# ---- What is right ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_clean_data_set_gives_no_alarm(layout_roots, params, layout):
    result = checked(layout_roots[layout], params)
    assert result.findings == ()
    assert [(row["severity"], row["label"]) for row in result.cases] == [("ok", True)] * 3 + [("ok", False)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_comes_with_real_archives_gives_no_alarm(layout_roots, params, tmp_path, layout):
    root = shutil.copytree(layout_roots[layout], tmp_path / layout)
    for path in sorted(root.rglob("*.nii.gz")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        (path.parent / ".DS_Store").write_bytes(b"Bud1")
    case = read_data(root).cases[0]
    for path in case.files:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    for path in read_data(root).cases[1].files:
        edit(path, lambda voxels: voxels.astype(np.float64))
    # nnU-Net itself looks for files that end as its dataset.json says.
    expected = ["file-ending"] * 5 if layout == "nnunet" else []
    assert [finding.rule for finding in checked(root, params).findings] == expected


# ---- What is wrong ----


def edit(path, change, affine=None):
    """Write a file again with other voxels, or elsewhere."""
    image = nib.load(path)
    voxels = change(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine(image.affine)), path)


def voxels_of(change):
    return lambda path: edit(path, change)


def with_voxel(value, index=(8, 8, 8)):
    def change(voxels):
        voxels = voxels.astype(np.float32)
        voxels[index] = value
        return voxels

    return voxels_of(change)


def moved(by_mm):
    def away(affine):
        affine = affine.copy()
        affine[0, 3] += by_mm
        return affine

    return lambda path: edit(path, lambda voxels: voxels, away)


def spaced(factor):
    return lambda path: edit(path, lambda voxels: voxels, lambda affine: affine @ np.diag([factor, 1, 1, 1]))


def cut_to(share):
    def plant(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return plant


def one_modality(number, change):
    def plant(voxels):
        voxels[..., number] = change(voxels[..., number])
        return voxels

    return voxels_of(plant)


def copied_from(other):
    return lambda path: shutil.copy(path.with_name(path.name.replace("BRATS_002", other)), path)


def repacked_from(other):
    """The same voxels in a file of other bytes, of another type."""

    def plant(path):
        image = nib.load(path.with_name(path.name.replace("BRATS_002", other)))
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine), path)

    return plant


def modality_from(other, number):
    """One modality of another case, of which the rest is another image."""

    def plant(path):
        of_other = np.asarray(nib.load(path.with_name(path.name.replace("BRATS_002", other))).dataobj)
        edit(
            path,
            lambda voxels: np.concatenate(
                [voxels[..., :number], of_other[..., number : number + 1], voxels[..., number + 1 :]], -1
            ),
        )

    return plant


def linked_out(path):
    away = path.parents[2] / "elsewhere.nii.gz"
    path.rename(away)
    path.symlink_to(away)


def flattened(path):
    """Give the file an affine with a determinant above 0 all of whose voxels lie in one plane, or nearly."""
    edit(
        path, lambda voxels: voxels, lambda _: np.array([[1, 1, 0, 0], [0, 1e-20, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    )


def with_double(value):
    def change(voxels):
        voxels = voxels.astype(np.float64)
        voxels[8, 8, 8, 1] = value
        return voxels

    return voxels_of(change)


def with_header(spacing_mm):
    """Both files of the case say that their voxels are so large."""

    def plant(path):
        for file in (path, path.parents[1] / "labelsTr" / path.name):
            edit(file, lambda voxels: voxels, lambda affine: affine @ np.diag([*np.broadcast_to(spacing_mm, 3), 1]))

    return plant


def without_orientation(path):
    """Both files of the case have neither a qform nor an sform."""
    for file in (path, path.parents[1] / "labelsTr" / path.name):
        image = nib.load(file)
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), file)


def index_of(change):
    def plant(path):
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    return plant


def second_image(value):
    return index_of(lambda index: index["training"][1].update(image=value))


def corner(voxels):
    voxels[:] = 0
    voxels[:2, :2, :2] = 1
    return voxels


IMAGE, LABEL, INDEX = "imagesTr/BRATS_002.nii.gz", "labelsTr/BRATS_002.nii.gz", "dataset.json"

MSD_FAULTS = {
    "image cut short": (IMAGE, cut_to(0.5), "unreadable", IMAGE),
    "image cut in its last bytes": (IMAGE, cut_to(0.999), "unreadable", IMAGE),
    "image empty": (IMAGE, cut_to(0), "unreadable", IMAGE),
    "label cut short": (LABEL, cut_to(0.5), "unreadable", LABEL),
    "a page in place of an image": (IMAGE, lambda p: p.write_text("<html>404</html>"), "unreadable", IMAGE),
    "image of 3 axes": (IMAGE, voxels_of(lambda v: v[..., 0]), "axes", IMAGE),
    "label of 4 axes": (LABEL, voxels_of(lambda v: np.stack([v, v], -1)), "axes", LABEL),
    "3 modalities": (IMAGE, voxels_of(lambda v: v[..., :3]), "modalities", IMAGE),
    "5 modalities": (IMAGE, voxels_of(lambda v: v[..., [0, 1, 2, 3, 3]]), "modalities", IMAGE),
    "label of another shape": (LABEL, voxels_of(lambda v: v[:-1]), "shape", LABEL),
    "label elsewhere": (LABEL, moved(5.0), "affine", LABEL),
    "label of other voxels": (LABEL, spaced(1.5), "affine", LABEL),
    "label rounded": (LABEL, moved(1e-4), "affine-rounding", LABEL),
    "NaN": (IMAGE, with_voxel([1, np.nan, 1, 1]), "not-finite", IMAGE),
    "infinity": (IMAGE, with_voxel([1, 1, np.inf, 1]), "not-finite", IMAGE),
    "NaN in the air": (IMAGE, with_voxel([np.nan, 0, 0, 0], (0, 0, 0)), "not-finite", IMAGE),
    "NaN in the label": (LABEL, with_voxel(np.nan), "not-finite", LABEL),
    "label 4": (LABEL, with_voxel(4), "label-values", LABEL),
    "label -1": (LABEL, with_voxel(-1), "label-values", LABEL),
    "label 1.5": (LABEL, with_voxel(1.5), "label-values", LABEL),
    "label 1000": (LABEL, with_voxel(1000), "label-values", LABEL),
    "a tumour in the air": (LABEL, voxels_of(corner), "outside-brain", LABEL),
    "not skull-stripped": (IMAGE, voxels_of(lambda v: v + np.float32(5)), "no-air", IMAGE),
    "no tumour": (LABEL, voxels_of(np.zeros_like), "empty-label", LABEL),
    "empty modality": (IMAGE, one_modality(2, np.zeros_like), "empty-modality", IMAGE),
    "empty image": (IMAGE, voxels_of(np.zeros_like), "empty-modality", IMAGE),
    "constant modality": (IMAGE, one_modality(1, lambda v: np.full_like(v, 7)), "constant-modality", IMAGE),
    "mask for a modality": (IMAGE, one_modality(1, lambda v: np.where(v > 0, 1, 0)), "constant-modality", IMAGE),
    "a modality twice": (IMAGE, voxels_of(lambda v: v[..., [0, 1, 1, 3]]), "same-modality", IMAGE),
    "an image twice": (IMAGE, copied_from("BRATS_001"), "same-image", ""),
    "an image twice, packed otherwise": (IMAGE, repacked_from("BRATS_001"), "same-image", ""),
    "image missing": (IMAGE, lambda path: path.unlink(), "missing-file", IMAGE),
    "label missing": (LABEL, lambda path: path.unlink(), "missing-file", LABEL),
    "no label in the index": (INDEX, index_of(lambda i: i["training"][1].pop("label")), "missing-label", INDEX),
    "a modality of another case": (IMAGE, modality_from("BRATS_001", 1), "same-image", ""),
    "a label of another case": (
        INDEX,
        index_of(lambda index: index["training"][1].update(label="labelsTr/BRATS_001.nii.gz")),
        "same-file",
        "labelsTr/BRATS_001.nii.gz",
    ),
    "a link that leads out": (IMAGE, linked_out, "outside-link", IMAGE),
    "an affine that places no voxel": (IMAGE, flattened, "unreadable", IMAGE),
    "more than float32 holds": (IMAGE, with_double(1e300), "not-finite", IMAGE),
    "voxels of 10 mm": (IMAGE, with_header(10), "voxel-size", IMAGE),
    "metres for millimetres": (IMAGE, with_header(0.001), "voxel-size", IMAGE),
    "a flat voxel": (IMAGE, with_header([1, 1, 0.01]), "voxel-size", IMAGE),
    "a label that is copied": (LABEL, copied_from("BRATS_001"), "same-label", ""),
    "a header that places nothing": (IMAGE, without_orientation, "no-orientation", IMAGE),
    "a path outside": (INDEX, second_image("../../BRATS_002.nii.gz"), "outside-path", INDEX),
    "an absolute path": (INDEX, second_image("/data/BRATS_002.nii.gz"), "outside-path", INDEX),
    "a case twice": (
        INDEX,
        index_of(lambda index: index["training"].append(index["training"][1]) or index.update(numTraining=4)),
        "duplicate-name",
        INDEX,
    ),
    "a wrong count": (INDEX, index_of(lambda index: index.update(numTraining=484)), "case-count", INDEX),
    "a file that nobody names": (
        IMAGE,
        lambda path: shutil.copy(path, path.with_name("extra.nii.gz")),
        "undeclared-file",
        "imagesTr/extra.nii.gz",
    ),
}

ABOUT_THE_SET = {"case-count", "undeclared-file", "outside-link"}


@pytest.fixture
def root(layout_roots, tmp_path):
    """A copy of the clean data set in the layout of MSD that may be broken."""
    return shutil.copytree(layout_roots["msd"], tmp_path / "Task01")


@pytest.mark.parametrize("fault", MSD_FAULTS)
def test_a_planted_fault_is_found_where_it_is(root, params, fault):
    where, plant, rule, file = MSD_FAULTS[fault]
    plant(root / where)
    result = found(root, params)
    severity = "warning" if rule in WARNINGS else "error"
    assert (severity, rule, "" if rule in ABOUT_THE_SET else "BRATS_002", file) in result
    others = [finding for finding in result if finding[1] != rule]
    # An image that no entry names any more is told as well, and that a constant one has no air; nothing of other cases.
    expected = {("undeclared-file", IMAGE), ("undeclared-file", LABEL)}
    other_label = {("outside-brain", "labelsTr/BRATS_001.nii.gz"), ("outside-brain", LABEL), ("same-label", "")}
    expected |= other_label if fault.startswith("a label") else set()
    expected |= {("no-air", IMAGE)} if fault == "constant modality" else set()
    expected |= {("outside-brain", LABEL)} if fault == "empty image" else set()
    assert {(finding[1], finding[3]) for finding in others} <= expected
    assert {finding[2] for finding in result} <= {"", "BRATS_002"}


@pytest.mark.parametrize("layout", ["brats2021", "brats2023", "nnunet"])
@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (cut_to(0.7), "unreadable"),
        (voxels_of(lambda v: np.stack([v, v], -1)), "axes"),
        (voxels_of(lambda v: v[:, :-1]), "shape"),
        (moved(2.0), "affine"),
        (moved(1e-4), "affine-rounding"),
        (spaced(1.2), "affine"),
        (with_voxel(np.inf), "not-finite"),
        (voxels_of(np.zeros_like), "empty-modality"),
        (voxels_of(lambda v: np.full_like(v, 3)), "constant-modality"),
        (lambda path: path.unlink(), "missing-modality"),
    ],
)
def test_a_fault_of_one_of_many_files_is_found_in_it(layout_roots, params, tmp_path, layout, plant, rule):
    root = shutil.copytree(layout_roots[layout], tmp_path / layout)
    case = read_data(root).cases[1]
    plant(case.images[2])
    ((_, _, name, file),) = [finding for finding in found(root, params) if finding[1] == rule]
    assert name == case.id
    path = case.images[2].relative_to(root).as_posix()
    assert file == path or (rule == "missing-modality" and file in path)


@pytest.mark.parametrize(("layout", "value"), [("brats2021", 3), ("brats2023", 4), ("nnunet", 4)])
def test_each_layout_has_labels_of_its_own(layout_roots, params, tmp_path, layout, value):
    root = shutil.copytree(layout_roots[layout], tmp_path / layout)
    case = read_data(root).cases[1]
    with_voxel(value)(case.label)
    assert [finding[1:3] for finding in found(root, params)] == [("label-values", case.id)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_kinds_of_a_file_are_no_error(layout_roots, params, tmp_path, layout):
    root = shutil.copytree(layout_roots[layout], tmp_path / layout)
    for path in sorted(root.rglob("*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    result = checked(root, params)
    assert result.errors == []
    assert {finding.rule for finding in result.findings} <= {"undeclared-file", "file-ending"}
    assert read_data(root).cases[0].files == tuple(
        root / file.relative_to(layout_roots[layout]) for file in read_data(layout_roots[layout]).cases[0].files
    )


@pytest.mark.parametrize(
    ("where", "voxel", "rule"),
    [(IMAGE, [1, np.nan, 1, 1], "not-finite"), (LABEL, 7, "label-values"), (LABEL, 1.5, "label-values")],
)
def test_a_voxel_that_resampling_does_not_take_is_found(root, params, where, voxel, rule):
    for file in (IMAGE, LABEL):
        edit(root / file, lambda voxels: voxels.repeat(3, 0).repeat(3, 1).repeat(3, 2))
        edit(root / file, lambda voxels: voxels, lambda affine: affine @ np.diag([1 / 3, 1 / 3, 1 / 3, 1]))
    assert found(root, params) == []
    with_voxel(voxel, (24, 24, 24))(root / where)
    assert found(root, params) == [("error", rule, "BRATS_002", where)]


def test_a_path_that_goes_out_and_comes_back_is_none_that_leaves(root, params):
    second_image("imagesTs/../imagesTr/BRATS_002.nii.gz")(root / INDEX)
    assert found(root, params) == []


def test_a_modality_that_is_a_copy_of_another_file_is_found(layout_roots, params, tmp_path):
    root = shutil.copytree(layout_roots["brats2021"], tmp_path / "brats")
    case = read_data(root).cases[0]
    shutil.copy(case.images[1], case.images[2])
    assert [finding[1] for finding in found(root, params)] == ["same-modality"]


def test_an_unlabelled_case_is_checked_too_and_may_not_be_one_of_training(root, params):
    shutil.copy(root / "imagesTr" / "BRATS_003.nii.gz", root / "imagesTs" / "BRATS_004.nii.gz")
    (finding,) = checked(root, params).findings
    assert (finding.rule, finding.case, finding.value) == ("same-image", "BRATS_004", "that of BRATS_003")


def test_another_spacing_is_an_error_only_where_it_shall_be(root, params):
    for where in (IMAGE, LABEL):
        spaced(1.5)(root / where)
    assert found(root, params) == []
    assert found(root, params, other_spacing="refuse") == [("error", "spacing", "BRATS_002", IMAGE)]


def change_index(root, **changes):
    index = json.loads((root / "dataset.json").read_text()) | changes
    (root / "dataset.json").write_text(json.dumps({key: value for key, value in index.items() if value is not None}))


def more_channels(root):
    shutil.copy(root / "imagesTr" / "BRATS_002_0001.nii.gz", root / "imagesTr" / "BRATS_002_0004.nii.gz")


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        # What nnU-Net's verify_dataset_integrity asserts or warns of, in its order.
        (lambda root: (root / "dataset.json").unlink(), None),
        (lambda root: shutil.rmtree(root / "imagesTr"), "missing-image"),
        (lambda root: shutil.rmtree(root / "labelsTr"), "missing-label"),
        (lambda root: change_index(root, file_ending=None), None),
        (lambda root: change_index(root, numTraining=7), "case-count"),
        (lambda root: (root / "labelsTr" / "BRATS_002.nii.gz").unlink(), "missing-label"),
        (lambda root: (root / "imagesTr" / "BRATS_002_0003.nii.gz").unlink(), "missing-modality"),
        (lambda root: change_index(root, file_ending=".nii"), "file-ending"),
        (lambda root: change_index(root, labels={"background": 0, "WT": [1, 2, 4], "TC": [2, 4], "ET": 4}), None),
        (lambda root: change_index(root, labels={"background": 1, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3}), None),
        (lambda root: with_voxel(4)(root / "labelsTr" / "BRATS_002.nii.gz"), "label-values"),
        (lambda root: with_voxel(np.nan)(root / "labelsTr" / "BRATS_002.nii.gz"), "not-finite"),
        (lambda root: with_voxel(np.nan)(root / "imagesTr" / "BRATS_002_0001.nii.gz"), "not-finite"),
        (lambda root: edit(root / "labelsTr" / "BRATS_002.nii.gz", lambda v: v[:-1]), "shape"),
        (lambda root: spaced(1.5)(root / "labelsTr" / "BRATS_002.nii.gz"), "affine"),
        (lambda root: moved(3.0)(root / "labelsTr" / "BRATS_002.nii.gz"), "affine"),
        (lambda root: moved(3.0)(root / "imagesTr" / "BRATS_002_0002.nii.gz"), "affine"),
        (lambda root: edit(root / "imagesTr" / "BRATS_002_0002.nii.gz", lambda v: v[:, :-1]), "shape"),
        (more_channels, "extra-channel"),
    ],
)
def test_what_nnunet_finds_is_found(layout_roots, params, tmp_path, plant, rule):
    root = shutil.copytree(layout_roots["nnunet"], tmp_path / "Dataset001")
    plant(root)
    if rule is None:  # there is nothing to read
        with pytest.raises(MisError, match=r"dataset\.json"):
            read_data(root, "nnunet")
    else:
        assert rule in [finding[1] for finding in found(root, params, layout="nnunet")]


def test_there_is_a_fault_for_every_rule():
    """What the tests of layouts plant is in tests/data/layouts."""
    planted = {rule for _, _, rule, _ in MSD_FAULTS.values()} | {"spacing", "missing-modality"}
    elsewhere = {
        "not-understood",
        "missing-image",
        "misnamed-label",
        "unlabelled",
        "extra-channel",
        "file-ending",
        "case-name",
    }
    assert set(RULES) - planted == elsewhere
    assert len(MSD_FAULTS) >= 20


# ---- The tables ----


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_same_image_is_known_whatever_its_label_is(root, params):
    shutil.copy(root / IMAGE, root / "imagesTr" / "BRATS_003.nii.gz")
    with_voxel(1, (0, 0, 0))(root / "labelsTr" / "BRATS_003.nii.gz")
    for crop in ("brain", "none"):
        assert ("error", "same-image", "BRATS_003", "") in found(root, params, crop=crop)


def test_a_page_has_each_value_under_its_name(root, params, tmp_path):
    result = checked(root, params)
    write_tables(tmp_path, result.findings, result.cases, {})
    page = (tmp_path / "check.html").read_text()
    keys = re.findall(r"<th>(\w+)</th>", page[page.index("<h2>Cases") :])
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr class=.*?</tr>", page)]
    assert [len(row) for row in rows] == [len(keys)] * 4
    unlabelled = dict(zip(keys, rows[-1], strict=True))
    assert unlabelled["label_1"] == ""
    assert unlabelled["brain_voxels"] == str(result.cases[-1]["brain_voxels"])


def test_the_tables_have_every_finding(root, params, tmp_path):
    with_voxel(4)(root / LABEL)
    moved(1e-4)(root / "labelsTr" / "BRATS_001.nii.gz")
    result = checked(root, params)
    out = tmp_path / "check"
    out.mkdir()
    write_tables(out, result.findings, result.cases, {"root": "<b>Task01</b>", "verdict": "1 error"})
    rows = rows_of(out / "findings.csv")
    assert [(row["severity"], row["rule"]) for row in rows] == [
        ("error", "label-values"),
        ("warning", "affine-rounding"),
    ]
    content = json.loads((out / "check.json").read_text())
    assert [row["value"] for row in content["findings"]] == [row["value"] for row in rows]
    assert [row["case"] for row in content["cases"]] == [f"BRATS_00{number}" for number in (1, 2, 3, 4)]
    assert [row["severity"] for row in rows_of(out / "cases.csv")] == ["warning", "error", "ok", "ok"]
    page = (out / "check.html").read_text()
    assert "&lt;b&gt;Task01" in page
    assert all(row["value"] in page for row in rows)


def test_tables_without_findings_have_their_header(tmp_path):
    write_tables(tmp_path, (), (), {"verdict": "ok"})
    assert (tmp_path / "findings.csv").read_text().strip() == "severity,case,file,rule,value,meaning"
    assert "Nothing was found" in (tmp_path / "check.html").read_text()


def test_a_case_that_is_named_twice_is_named_in_the_message(root, params):
    index_of(lambda index: index["training"].append(index["training"][1]) or index.update(numTraining=4))(root / INDEX)
    (finding,) = checked(root, params).findings
    assert sentence(finding) == "BRATS_002 (dataset.json): a case must be named once, got twice"


def test_of_equal_images_the_first_stays(tiny):
    first, second, third = tiny.cases[:3]
    unlabelled = tiny.unlabelled[0]
    contents = [(unlabelled, "abcd"), (second, "abcd"), (third, "efgh"), (first, "abcd"), (tiny.cases[4], ())]
    assert [(finding.case, finding.value) for finding in find_duplicates(contents)] == [
        (second.id, f"that of {first.id}"),
        (unlabelled.id, f"that of {first.id}"),
    ]


def test_a_label_alone_that_is_copied_is_told(tiny):
    first, second, third = tiny.cases[:3]
    contents = [(first, "abcdl"), (second, "efghl"), (third, "abcdl")]
    duplicates = [(finding.rule, finding.case, finding.value) for finding in find_duplicates(contents)]
    assert duplicates == [
        ("same-label", second.id, f"that of {first.id}"),
        ("same-image", third.id, f"that of {first.id}"),
    ]


def test_a_grid_of_too_many_voxels_is_refused_before_it_is_made(root, params):
    for where in (IMAGE, LABEL):
        spaced(1.5)(root / where)
    assert found(root, params, spacing_mm=[0.01, 1.0, 1.0])[0][:3] == ("error", "spacing", "BRATS_001")


def test_of_some_modalities_it_is_told_which(tiny):
    first, second, third = tiny.cases[:3]
    contents = [(first, "abcd"), (second, "afgd"), (third, ("f", "", "", "i"))]
    assert [(finding.case, finding.value) for finding in find_duplicates(contents)] == [
        (second.id, f"FLAIR, T2w of {first.id}"),
        (third.id, f"FLAIR of {second.id}"),
    ]
