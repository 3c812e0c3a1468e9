"""From a data set to its records; and every fault that a data set can have, from its folder to the message."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from mis.data.dataset import case_batches
from mis.data.integrity import load_case
from mis.data.layouts import read_msd
from mis.data.preprocess import region_channels, standardise
from mis.data.records import read_records
from mis.data.writer import write_records
from mis.errors import MisError


@pytest.fixture
def root(tiny_root, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(tiny_root, tmp_path / "Task01")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- What is right ----


def test_every_labelled_case_has_a_file_and_the_split_names_it(records, tiny):
    names = [case.id for case in tiny.cases]
    assert sorted(contents(records.folder)) == sorted(
        [*(f"{name}.tfrecord" for name in names), "index.json", "split.json"]
    )
    assert sorted(records.split.train + records.split.val + records.split.test) == names
    assert records.shape == (16, 16, 16)
    assert (records.modalities, records.regions) == (("FLAIR", "T1w", "T1gd", "T2w"), ("WT", "TC", "ET"))
    assert all(records.path(name).is_file() for name in names)


def test_values_come_back_within_half_precision(records, tiny):
    # 11 significant bits: an error of at most 2**-11 of the value, here and below the smallest normal one.
    for case in tiny.cases:
        volume = load_case(case, tiny)
        ((image, target, _),) = list(case_batches(records, [case.id], 1))
        expected = standardise(volume.image)
        assert np.all(np.abs(image[0].numpy() - expected) <= np.abs(expected) * 2.0**-11 + 2.0**-25)
        np.testing.assert_array_equal(target[0].numpy(), region_channels(volume.label, tiny.regions))


def test_the_grid_and_the_target_are_those_asked_for(tiny, params, tmp_path):
    own = params.override({"data.multiple": 24, "data.target": "whole_tumor"})
    records = write_records(tiny, own.data, tmp_path / "records", jobs=1, progress=False)
    assert (records.shape, records.regions) == ((24, 24, 24), ("WT",))
    case = tiny.cases[0]
    ((image, target, _),) = list(case_batches(records, [case.id], 1))
    assert image.shape == (1, 24, 24, 24, 4)
    assert target.shape == (1, 24, 24, 24, 1)
    label = load_case(case, tiny).label
    np.testing.assert_array_equal(target[0, 4:-4, 4:-4, 4:-4, 0].numpy(), label > 0)
    assert target.numpy().sum() == (label > 0).sum()


def test_the_bytes_do_not_depend_on_the_number_of_jobs(tiny, params, records, tmp_path):
    one = write_records(tiny, params.data, tmp_path / "one", jobs=1, progress=False)
    assert contents(one.folder) == contents(records.folder)
    assert one.digest == records.digest


def varint(number):
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def field(content):
    """Return field 1 of a protocol buffer's message, of type bytes."""
    return b"\x0a" + varint(len(content)) + content


def test_the_bytes_are_the_same_in_every_process(records, tiny):
    # A map of protocol buffers has no order of its own: one that differs from process to process changes the digest,
    # and a training that was killed would not find its checkpoint again.
    case = tiny.cases[0]
    volume = load_case(case, tiny)
    image = standardise(volume.image).astype(np.float16).tobytes()
    target = region_channels(volume.label, tiny.regions).tobytes()
    entries = b"".join(
        field(field(name) + b"\x12" + varint(len(value)) + value)
        for name, value in ((b"image", field(field(image))), (b"target", field(field(target))))
    )
    # A TFRecord: length, its checksum, content, its checksum.
    assert records.path(case.id).read_bytes()[12:-4] == field(entries)


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
    assert list(tmp_path.iterdir()) == [folder]


def test_progress_goes_to_stderr_and_only_when_asked_for(tiny, params, tmp_path, capsys):
    write_records(tiny, params.data, tmp_path / "quiet", jobs=1, progress=False)
    assert capsys.readouterr() == ("", "")
    write_records(tiny, params.data, tmp_path / "shown", jobs=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "preprocess" in err
    assert "8/8" in err


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
    "no index": ("dataset.json", lambda path: path.unlink(), ("must have dataset.json", "Task01")),
    "no image": (IMAGE, lambda path: path.unlink(), (IMAGE, "image must exist")),
    "no label file": (LABEL, lambda path: path.unlink(), (LABEL, "label of BRATS_005 must exist")),
    "no label in the index": (LABEL, remove_label, ("dataset.json", "BRATS_005", "must have a label, got none")),
    "image of 3 axes": (IMAGE, edit_voxels(lambda v: v[..., 0]), (IMAGE, "four axes", "got 3", "(16, 16, 16)")),
    "image of 5 axes": (IMAGE, edit_voxels(lambda v: v[..., None]), (IMAGE, "four axes", "got 5")),
    "3 modalities": (IMAGE, edit_voxels(lambda v: v[..., :3]), (IMAGE, "modalities FLAIR", "got 3")),
    "5 modalities": (IMAGE, edit_voxels(lambda v: v[..., [0, 1, 2, 3, 3]]), (IMAGE, "modalities FLAIR", "got 5")),
    "label of 4 axes": (LABEL, edit_voxels(lambda v: v[..., None].repeat(2, -1)), (LABEL, "three axes", "got 4")),
    "label of another shape": (LABEL, edit_voxels(lambda v: v[:-1]), (LABEL, IMAGE[9:], "got (15, 16, 16)")),
    "image of another shape": (IMAGE, edit_voxels(lambda v: v[:, :-2]), (LABEL, "(16, 14, 16)", "got (16, 16, 16)")),
    "empty image": (IMAGE, cut_to(0), (IMAGE, "complete NIfTI file")),
    "image cut in its header": (IMAGE, cut_to(0.01), (IMAGE, "complete NIfTI file")),
    "image cut in the middle": (IMAGE, cut_to(0.5), (IMAGE, "complete NIfTI file")),
    "image cut near its end": (IMAGE, cut_to(0.99), (IMAGE, "complete NIfTI file")),
    "image cut before it was compressed": (IMAGE, cut_inside, (IMAGE, "complete NIfTI file")),
    "label cut in the middle": (LABEL, cut_to(0.5), (LABEL, "complete NIfTI file")),
    "label of 4": (LABEL, with_voxel(4), (LABEL, "among [0, 1, 2, 3]", "got 4 as well")),
    "label of -1": (LABEL, with_voxel(-1), (LABEL, "among [0, 1, 2, 3]", "got -1 as well")),
    "label between two": (LABEL, with_voxel(1.5), (LABEL, "among [0, 1, 2, 3]", "got 1.5 as well")),
    "label of nan": (LABEL, with_voxel(np.nan), (LABEL, "finite", "got nan at (8, 8, 8)")),
    "nan": (IMAGE, with_voxel([1, np.nan, 1, 1]), (IMAGE, "finite", "got nan at (8, 8, 8, 1)")),
    "infinity": (IMAGE, with_voxel([1, 1, np.inf, 1]), (IMAGE, "finite", "got inf at (8, 8, 8, 2)")),
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
        write_records(read_msd(root), params.data, folder, jobs=2, progress=False)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message
    assert list(folder.parent.iterdir()) == ([folder] if older else [])
    assert contents(folder) == before


def test_cases_of_unlike_shapes_are_refused(root, params, tmp_path):
    for where in (IMAGE, LABEL):
        edit_voxels(lambda voxels: voxels[:8])(root / where)
    with pytest.raises(MisError) as error:
        write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    assert "one shape, (16, 16, 16) as BRATS_001, got (8, 16, 16) in BRATS_005" in str(error.value)
    assert not (tmp_path / "records").exists()


def test_an_image_too_small_to_crop_is_refused_with_the_way_out(tiny, params, tmp_path):
    own = params.override({"data.multiple": 24, "data.fit": "crop"})
    with pytest.raises(MisError) as error:
        write_records(tiny, own.data, tmp_path / "records", jobs=1, progress=False)
    message = str(error.value)
    assert all(part in message for part in ("BRATS_00", "16", "24", "set data.fit to pad"))
    assert list(tmp_path.iterdir()) == []


def test_what_was_refused_and_mended_gives_the_records_of_the_whole_data_set(
    root, tiny_root, params, records, tmp_path
):
    (root / LABEL).write_bytes(b"")
    with pytest.raises(MisError):
        write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    shutil.copy(tiny_root / LABEL, root / LABEL)
    again = write_records(read_msd(root), params.data, tmp_path / "records", jobs=2, progress=False)
    assert contents(again.folder) == contents(read_records(records.folder).folder)
