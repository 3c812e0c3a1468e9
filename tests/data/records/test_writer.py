"""From a data set to its records; and every fault that a data set can have, from its folder to the message."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from mis.data.check.case import check_case
from mis.data.geometry import centred_start, take_window
from mis.data.layouts.msd import read_msd
from mis.data.layouts.recognise import read_data
from mis.data.pipeline.dataset import case_batches
from mis.data.records import case_record
from mis.data.records.preprocess import filled, region_bits, region_channels, standardise
from mis.data.records.reader import read_records
from mis.data.records.summary import summary, tables_folder
from mis.data.records.writer import write_records
from mis.errors import MisError
from mis.params.data import LAYOUTS
from tests.data.grids import to_file


@pytest.fixture
def root(tiny_root, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(tiny_root, tmp_path / "Task01")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def records_of(folder):
    return {name: content for name, content in contents(folder).items() if name.endswith(".tfrecord")}


def beside(folder):
    """Return what there is but for the lock, which stays."""
    return sorted(path.name for path in folder.parent.iterdir() if not path.name.endswith(".making"))


# ---- What is right ----


def test_every_labelled_case_has_a_file_and_the_split_names_it(records, tiny):
    names = [case.id for case in tiny.cases]
    assert sorted(contents(records.folder)) == sorted(
        [
            *(f"{name}.tfrecord" for name in names),
            *("index.json", "split.json"),
        ]
    )
    assert sorted(contents(tables_folder(records.folder))) == ["cases.csv", "check.html", "check.json", "findings.csv"]
    assert sorted(records.split.train + records.split.val + records.split.test) == names
    assert records.shape == (16, 16, 16)
    assert (records.modalities, records.regions) == (("FLAIR", "T1w", "T1gd", "T2w"), ("WT", "TC", "ET"))
    assert all(records.path(name).is_file() for name in names)


def network_sees(checked, shape):
    """Return what a network would see of a case in single precision, and its target."""
    brain = checked.brain
    image = filled(brain.mask, standardise(brain.values))
    bits = region_bits(brain.label, {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)})
    start = tuple(centred_start(n, m) for n, m in zip(brain.mask.shape, shape, strict=True))
    return take_window(image, start, shape), region_channels(take_window(bits, start, shape), range(3))


@pytest.mark.parametrize(
    ("compression", "crop", "fit"),
    [("none", "brain", "pad"), ("zlib", "brain", "crop"), ("zlib", "none", "pad"), ("none", "none", "crop")],
)
def test_values_come_back_within_half_precision(tiny, params, tmp_path, compression, crop, fit):
    # 11 significant bits: an error of at most 2**-11 of the value, here and below the smallest normal one.
    changed = params.override({"data.compression": compression, "data.crop": crop, "data.fit": fit}).data
    records = write_records(tiny, changed, tmp_path / "records", jobs=2, progress=False)
    batches = case_batches(records, [case.id for case in tiny.cases], 1)
    for case, (image, target, _) in zip(tiny.cases, batches, strict=True):
        expected, truth = network_sees(check_case(case, tiny, changed), records.shape)
        assert np.all(np.abs(image[0].numpy() - expected) <= np.abs(expected) * 2.0**-11 + 2.0**-25)
        np.testing.assert_array_equal(target[0].numpy(), truth)
        assert not image[0].numpy()[~expected.any(axis=-1)].any(), "air is exactly 0"


@pytest.mark.parametrize("crop", ["brain", "none"])
def test_a_target_goes_back_into_the_grid_of_its_file(tiny, params, tmp_path, crop):
    """So does a prediction: exactly, whatever was cropped and padded."""
    changed = params.override({"data.crop": crop, "data.multiple": 24}).data
    records = write_records(tiny, changed, tmp_path / "records", jobs=2, progress=False)
    batches = case_batches(records, [case.id for case in tiny.cases], 1)
    for case, (_, target, _) in zip(tiny.cases, batches, strict=True):
        label = nib.load(case.label)
        for number, values in enumerate(tiny.regions.values()):
            back = to_file(records.cases[case.id].geometry, target[0, ..., number].numpy())
            np.testing.assert_array_equal(back, np.isin(np.asarray(label.dataobj), values))
        np.testing.assert_array_equal(records.cases[case.id].geometry.affine, label.affine)


def test_the_same_patients_have_identical_records_in_every_layout(layout_roots, params, tmp_path):
    made = [
        write_records(read_data(layout_roots[layout]), params.data, tmp_path / layout, jobs=2, progress=False)
        for layout in LAYOUTS
    ]
    for records in made:
        assert list(records_of(records.folder).values()) == list(records_of(made[0].folder).values())
        assert records.shape == made[0].shape
    assert len(records_of(made[0].folder)) == 3


def test_the_grid_and_the_target_are_those_asked_for(tiny, params, tmp_path):
    changed = params.override({"data.multiple": 24, "data.target": "whole_tumor"})
    records = write_records(tiny, changed.data, tmp_path / "records", jobs=1, progress=False)
    assert (records.shape, records.regions) == ((24, 24, 24), ("WT",))
    case = tiny.cases[0]
    ((image, target, _),) = list(case_batches(records, [case.id], 1))
    assert image.shape == (1, 24, 24, 24, 4)
    assert target.shape == (1, 24, 24, 24, 1)
    assert target.numpy().sum() == np.count_nonzero(np.asarray(nib.load(case.label).dataobj))


def test_the_bytes_do_not_depend_on_the_number_of_jobs(tiny, params, records, tmp_path):
    single = write_records(tiny, params.data, tmp_path / "one", jobs=1, progress=False)
    assert contents(single.folder) == contents(records.folder)
    assert single.digest == records.digest


def varint(number):
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def field(content):
    """Return field 1 of a protocol buffer's message, of type bytes."""
    return b"\x0a" + varint(len(content)) + content


def test_the_bytes_are_the_same_in_every_process(records, tiny):
    # A map of protocol buffers has no order: one that differs from process to process changes the digest, and a
    # training that was killed would not find its checkpoint again.
    for case in tiny.cases:
        content = records.path(case.id).read_bytes()[12:-4]
        example = tf.train.Example.FromString(content)
        entries = b"".join(
            field(field(name.encode()) + b"\x12" + varint(len(value)) + value)
            for name, feature in sorted(example.features.feature.items())
            for value in [feature.SerializeToString()]
        )
        assert content == field(entries)
        assert sorted(example.features.feature) == ["image", "label", "mask", "shape"]


@pytest.mark.parametrize("what", ["images", "label"])
def test_the_digest_changes_with_one_voxel(root, params, records, tmp_path, what):
    data = read_msd(root)
    case = data.cases[2]
    path = case.label if what == "label" else case.images[0]
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).copy()
    first = tuple(np.argwhere(voxels)[0])
    voxels[first] = 3 - voxels[first] if what == "label" else voxels[first] * 2
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), path)
    other = write_records(data, params.data, tmp_path / "records", jobs=2, progress=False)
    assert other.digest != records.digest
    old, new = contents(records.folder), contents(other.folder)
    assert {name for name in old if old[name] != new[name]} == {f"{case.id}.tfrecord", "index.json"}


def test_the_digest_changes_with_the_split(tiny, params, records, tmp_path):
    """Otherwise a training that was killed would go on with cases that are now for testing."""
    other = params.override({"data.split.seed": params.data.split.seed + 1}).data
    again = write_records(tiny, other, tmp_path / "again", jobs=1, progress=False)
    assert again.split != records.split
    assert again.digest != records.digest


def test_the_order_of_the_cases_does_not_matter(root, params, records, tmp_path):
    index = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(index | {"training": index["training"][::-1]}))
    other = write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    assert contents(other.folder) == contents(records.folder)


def test_older_records_are_replaced_whole(tiny, params, records, tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "old.tfrecord").write_text("old")
    write_records(tiny, params.data, folder, jobs=2, progress=False)
    assert contents(folder) == contents(records.folder)
    assert beside(folder) == ["records", "records-check"]


def test_progress_goes_to_stderr_and_only_when_asked_for(tiny, params, tmp_path, capsys):
    write_records(tiny, params.data, tmp_path / "quiet", jobs=1, progress=False)
    assert capsys.readouterr() == ("", "")
    write_records(tiny, params.data, tmp_path / "shown", jobs=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "preprocess" in err
    assert "8/8" in err


# ---- Going on, and only what has changed ----

KILLED = """
import sys, os, signal
from pathlib import Path
from mis.quiet import import_tensorflow
import_tensorflow()
import mis.data.records.case_record as case_record
from mis.data.layouts.msd import read_msd
from mis.data.records.writer import write_records
from mis.params.load import load_params

write, count = case_record.write_case, 0
def write_and_die(*arguments):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*arguments)
case_record.write_case = write_and_die
write_records(read_msd(Path(sys.argv[1])), load_params(Path("params.yaml")).data, Path(sys.argv[2]), jobs=1)
"""


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")}


def counted(monkeypatch):
    """Return a list that grows by the name of each case whose record is written."""
    made, write = [], case_record.write_case

    def noted(checked, *arguments):
        made.append(checked.case.id)
        return write(checked, *arguments)

    monkeypatch.setattr(case_record, "write_case", noted)
    return made


@pytest.mark.slow
def test_a_process_that_was_killed_is_gone_on_from(root, records, params, tmp_path, run_script, monkeypatch):
    folder = tmp_path / "out" / "records"
    run_script(KILLED, root, folder, returncode=-9)
    assert not folder.exists()
    unfinished = folder.with_name(".records.unfinished")
    before = times(unfinished)
    assert len(before) == 3
    made = counted(monkeypatch)
    again = write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    assert len(made) == 5
    assert {name: stamp for name, stamp in times(folder).items() if name in before} == before
    assert contents(folder) == contents(records.folder)
    assert again.digest == records.digest
    assert beside(folder) == ["records", "records-check"]


def test_records_that_were_all_made_are_gone_on_from_without_notes(root, records, params, tmp_path, monkeypatch):
    """A process may die when it has removed the notes, and not yet given the folder its name."""
    folder = tmp_path / "records"
    shutil.copytree(records.folder, tmp_path / ".records.unfinished")
    made = counted(monkeypatch)
    write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    assert made == []
    assert contents(folder) == contents(records.folder)


@pytest.mark.parametrize("layout", ["msd", "brats2021", "brats2023", "nnunet"])
def test_what_is_wrong_with_a_case_that_is_not_trained_on_is_gone_on_over(layout_roots, params, tmp_path, layout):
    root = shutil.copytree(layout_roots[layout], tmp_path / layout)
    read_data(root).unlabelled[0].images[-1].unlink()
    (found,) = read_data(root).findings
    assert (found.severity, found.trained_on) == ("error", False)
    assert len(write_records(read_data(root), params.data, tmp_path / "out", jobs=1, progress=False).cases) == 3


def cut_to_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [flipped, cut_to_half, Path.unlink])
def test_a_record_that_is_damaged_or_gone_is_made_again(root, records, params, tmp_path, monkeypatch, damage):
    folder = tmp_path / "records"
    write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    damage(folder / "BRATS_003.tfrecord")
    made = counted(monkeypatch)
    write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    assert made == ["BRATS_003"]
    assert contents(folder) == contents(records.folder)


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({}, 0),
        ({"data.split.seed": 5}, 0),
        ({"data.target": "whole_tumor"}, 0),
        ({"data.fit": "crop"}, 0),
        ({"data.multiple": 16}, 0),
        ({"data.skip_bad_cases": True}, 0),
        ({"data.layout": "msd"}, 0),
        ({"data.crop": "none"}, 8),
        ({"data.compression": "zlib"}, 8),
        ({"data.spacing_mm": [1.0, 1.0, 2.0]}, 8),
    ],
)
def test_only_what_a_parameter_changes_is_made_again(root, params, records, tmp_path, monkeypatch, changes, anew):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    made = counted(monkeypatch)
    changed = params.override(changes).data
    again = write_records(read_msd(root), changed, folder, jobs=2, progress=False)
    assert len(made) == anew
    assert again.params == changed
    fresh = write_records(read_msd(root), changed, tmp_path / "fresh", jobs=2, progress=False)
    assert contents(again.folder) == contents(fresh.folder)


def test_only_a_case_that_has_changed_is_made_again(root, params, records, tmp_path, monkeypatch):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    path = root / "imagesTr" / "BRATS_002.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), path)
    (root / "imagesTr" / "BRATS_005.nii.gz").touch()
    made = counted(monkeypatch)
    write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    assert made == ["BRATS_002"]


def test_a_case_that_is_gone_is_gone_from_the_records(root, params, records, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    index = json.loads((root / "dataset.json").read_text())
    index["training"].pop(2)
    index["numTraining"] = 7
    (root / "dataset.json").write_text(json.dumps(index))
    write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    assert len(records_of(folder)) == 7
    assert "BRATS_003.tfrecord" not in records_of(folder)


@pytest.mark.slow
def test_two_processes_do_not_make_the_same_records(root, params, tmp_path):
    folder = tmp_path / "out" / "records"
    # After three cases it says so, and waits for ever.
    source = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", 'print("three", flush=True), sys.stdin.read()')
    held = subprocess.Popen(
        [sys.executable, "-c", source, root, folder],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert held.stdout.readline() == b"three\n"
        with pytest.raises(MisError, match=r"one process at a time, got another one that makes .*records"):
            write_records(read_msd(root), params.data, folder, jobs=1, progress=False)
    finally:
        held.kill()
        held.communicate()
    write_records(read_msd(root), params.data, folder, jobs=2, progress=False)


# ---- What is wrong ----

IMAGE, LABEL = "imagesTr/BRATS_005.nii.gz", "labelsTr/BRATS_005.nii.gz"


def edit_voxels(change):
    """Return a fault that changes the voxels of a file."""

    def plant(path):
        image = nib.load(path)
        voxels = change(np.asarray(image.dataobj).astype(np.float32))
        nib.save(nib.Nifti1Image(voxels, image.affine), path)

    return plant


def with_voxel(value):
    def change(voxels):
        voxels[8, 8, 8] = value
        return voxels

    return edit_voxels(change)


def cut_to(share):
    def plant(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return plant


def cut_inside(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def remove_label(path):
    index = path.parents[1] / "dataset.json"
    content = json.loads(index.read_text())
    del content["training"][4]["label"]
    index.write_text(json.dumps(content))


def remove_folder(path):
    shutil.rmtree(path.parents[1])


FAULTS = {
    "no data set": (IMAGE, remove_folder, ("data.root must be a folder", "Task01")),
    "no index": ("dataset.json", lambda path: path.unlink(), ("must be in one of the layouts", "Task01")),
    "no image": (IMAGE, lambda path: path.unlink(), (IMAGE, "must exist")),
    "no label file": (LABEL, lambda path: path.unlink(), (LABEL, "must exist")),
    "no label in the index": (LABEL, remove_label, ("dataset.json", "must have a label, got no label")),
    "image of 3 axes": (IMAGE, edit_voxels(lambda v: v[..., 0]), (IMAGE, "axes", "got 3", "(16, 16, 16)")),
    "3 modalities": (IMAGE, edit_voxels(lambda v: v[..., :3]), (IMAGE, "four modalities", "got 3")),
    "label of another shape": (LABEL, edit_voxels(lambda v: v[:-1]), (LABEL, IMAGE[9:], "got (15, 16, 16)")),
    "image cut in the middle": (IMAGE, cut_to(0.5), (IMAGE, "complete NIfTI")),
    "image cut before it was compressed": (IMAGE, cut_inside, (IMAGE, "complete NIfTI")),
    "label of 4": (LABEL, with_voxel(4), (LABEL, "got 4 beside [0, 1, 2, 3]")),
    "nan": (IMAGE, with_voxel([1, np.nan, 1, 1]), (IMAGE, "finite", "in 1 of the voxels of T1w")),
}


@pytest.fixture(params=[False, True], ids=["first", "again"])
def folder(request, records, tmp_path):
    """Where records go: nothing is there, or older ones."""
    folder = tmp_path / "out" / "records"
    folder.parent.mkdir()
    if request.param:
        shutil.copytree(records.folder, folder)
    return folder


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_and_leaves_the_records_as_they_were(root, params, folder, name):
    where, plant, parts = FAULTS[name]
    plant(root / where)
    older = folder.exists()
    before = contents(folder)
    with pytest.raises(MisError) as error:
        write_records(read_data(root), params.data, folder, jobs=2, progress=False)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message
    assert [path for path in beside(folder) if not path.startswith(".")] == (["records"] if older else [])
    assert contents(folder) == before


def test_all_faults_are_counted_and_the_way_to_the_list_is_told(root, params, tmp_path):
    for number in (2, 5, 7):
        with_voxel(9)(root / f"labelsTr/BRATS_00{number}.nii.gz")
    with pytest.raises(MisError, match=r"BRATS_002.* \(2 more\); `python -m mis.data check .*` lists all"):
        write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)


def test_bad_cases_are_left_out_where_they_shall_be_and_told(root, params, tmp_path):
    with_voxel(9)(root / LABEL)
    (root / "labelsTr" / "BRATS_002.nii.gz").unlink()
    shutil.copy(root / "imagesTr" / "BRATS_003.nii.gz", root / "imagesTr" / "BRATS_007.nii.gz")
    changed = params.override({"data.skip_bad_cases": True}).data
    records = write_records(read_msd(root), changed, tmp_path / "records", jobs=2, progress=False)
    assert sorted(records.left_out) == ["BRATS_002", "BRATS_005", "BRATS_007"]
    assert records.left_out["BRATS_005"] == "label-values: 9 beside [0, 1, 2, 3]"
    assert any(line.startswith(f"left out BRATS_005: {LABEL}: a label must have") for line in summary(records))
    assert not records.left_out["BRATS_007"].startswith("BRATS_007")
    assert "that of BRATS_003" in records.left_out["BRATS_007"]
    used = (*records.split.train, *records.split.val, *records.split.test)
    assert sorted(used) == [f"BRATS_00{number}" for number in (1, 3, 4, 6, 8)]
    assert len(records_of(records.folder)) == 5
    table = (tables_folder(records.folder) / "findings.csv").read_text()
    assert all(rule in table for rule in ("label-values", "missing-file", "same-image"))


def test_an_unlabelled_image_that_is_missing_is_no_hindrance(root, params, records, tmp_path):
    """Many copy the part to train on alone."""
    shutil.rmtree(root / "imagesTs")
    made = write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    assert records_of(made.folder) == records_of(records.folder)


def test_what_is_wrong_with_the_whole_set_is_told_where_it_is_gone_on_over(root, params, tmp_path):
    index = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(index | {"numTraining": 484}))
    with pytest.raises(MisError, match="numTraining 484 and 8 cases"):
        write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    changed = params.override({"data.skip_bad_cases": True}).data
    records = write_records(read_msd(root), changed, tmp_path / "records", jobs=2, progress=False)
    assert len(records.cases) == 8
    assert summary(records)[0].startswith("gone on over dataset.json: dataset.json must count the cases")


@pytest.mark.parametrize("note", ["", "{", "{}", '{"key": 1}'])
def test_a_note_that_cannot_be_read_is_passed_over(root, params, records, tmp_path, note):
    unfinished = tmp_path / ".records.unfinished"
    unfinished.mkdir()
    (unfinished / "BRATS_001.json").write_text(note)
    made = write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    assert contents(made.folder) == contents(records.folder)


def test_too_few_cases_that_are_left_are_refused(root, params, tmp_path):
    for number in range(1, 7):
        with_voxel(9)(root / f"labelsTr/BRATS_00{number}.nii.gz")
    changed = params.override({"data.skip_bad_cases": True}).data
    refused = tmp_path / "check"
    with pytest.raises(MisError, match=r"needs 3 patients without errors, got 2; .*check\.html lists") as error:
        write_records(read_msd(root), changed, tmp_path / "records", jobs=2, progress=False, refused=refused)
    assert "skip_bad_cases" not in str(error.value)
    assert "BRATS_001" in (refused / "findings.csv").read_text()


def test_a_refusal_has_tables_and_leaves_those_of_the_records(root, params, tmp_path):
    folder, refused = tmp_path / "records", tmp_path / "results" / "check"
    write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    before = contents(folder)
    with_voxel(9)(root / "labelsTr/BRATS_001.nii.gz")
    with pytest.raises(MisError, match=r"got 9 beside .*results/check/check\.html lists all"):
        write_records(read_msd(root), params.data, folder, jobs=2, progress=False, refused=refused)
    assert contents(folder) == before
    assert (refused / "findings.csv").read_text().count("label-values") == 1


def test_cases_of_unlike_shapes_share_a_grid_that_holds_them_all(root, params, records, tmp_path):
    """Images of several scanners: a box is not that of another."""

    def longer(voxels):
        return np.concatenate([voxels, np.ones_like(voxels) if voxels.ndim == 4 else np.zeros_like(voxels)])

    for where in (IMAGE, LABEL):
        edit_voxels(longer)(root / where)
    other = write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    assert other.shape[0] == 32
    assert other.shape[1:] == records.shape[1:]
    ((image, target, _),) = list(case_batches(other, ["BRATS_005"], 1))
    assert image.shape[1:4] == target.shape[1:4] == other.shape


def test_an_image_too_small_to_crop_is_refused_with_the_way_out(tiny, params, tmp_path):
    changed = params.override({"data.multiple": 24, "data.fit": "crop"})
    with pytest.raises(MisError) as error:
        write_records(tiny, changed.data, tmp_path / "records", jobs=1, progress=False)
    message = str(error.value)
    assert all(part in message for part in ("at least data.multiple = 24 voxels", "set data.fit to pad"))
    assert not (tmp_path / "records").exists()


def test_what_was_refused_and_mended_gives_the_records_of_the_whole_data_set(
    root, tiny_root, params, records, tmp_path, monkeypatch
):
    (root / LABEL).write_bytes(b"")
    with pytest.raises(MisError):
        write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    shutil.copy(tiny_root / LABEL, root / LABEL)
    made = counted(monkeypatch)
    again = write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    assert made == ["BRATS_005"], "the others were made before"
    assert contents(again.folder) == contents(read_records(records.folder).folder)
