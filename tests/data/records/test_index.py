import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mis.data.check.findings import Finding
from mis.data.geometry import Geometry
from mis.data.records.index import IndexEntry, Records, record_path, write_index
from mis.data.records.reader import check_patch, read_records
from mis.data.records.summary import summary
from mis.data.split import Split
from mis.errors import MisError


def test_an_index_comes_back_as_it_was_written(params, tmp_path):
    split = Split(train=("a", "b"), val=("c",), test=("d",))
    geometry = replace(Geometry.of((9, 17, 30), np.diag([-1.0, 1, 1.5, 1]), (1, 1, 1)), start=(1, 2, 3), size=(4, 5, 6))
    finding = Finding("empty-label", "a", "labelsTr/a.nii.gz", "background alone")
    entry = IndexEntry(
        "key", "source", ("content",) * 4, "record", 0, geometry, {"FLAIR": {"mean": 1.5}, "WT": 3}, (finding,)
    )
    cases = dict.fromkeys("abcd", entry)
    excluded = {"e": (Finding("not-finite", "e", "imagesTr/e.nii.gz", "NaN in 1 of the voxels of T1w"),)}
    folder = tmp_path / "records"
    folder.mkdir()
    records = Records(folder, ("WT", "ET"), (8, 16, 24), split, "0123", params.data, cases, excluded, "abc.dir")
    write_index(records)
    for case in "abcd":
        records.path(case).touch()
    again = read_records(folder)
    assert again == records
    assert again.cases == cases
    assert (again.bits, again.modalities) == ((0, 2), ("FLAIR", "T1w", "T1gd", "T2w"))
    assert again.left_out == {"e": "not-finite: NaN in 1 of the voxels of T1w"}
    line = f"{folder}: 4 cases (2 to train on, 1 for validation, 1 to test) of 8 x 16 x 24 voxels, 0 MB"
    page = f"what is known of each: {tmp_path / 'records-check' / 'check.html'}"
    left_out = "left out e: imagesTr/e.nii.gz: voxels must be finite, got NaN in 1 of the voxels of T1w"
    assert summary(again) == [left_out, f"{line}; {page}"]


def test_records_are_read_from_where_they_lie(records, tmp_path):
    moved = read_records(shutil.copytree(records.folder, tmp_path / "moved"))
    assert moved.folder == tmp_path / "moved"
    assert (moved.digest, moved.split, moved.shape) == (records.digest, records.split, records.shape)
    assert str(tmp_path) not in (tmp_path / "moved" / "index.json").read_text()


def test_the_file_of_a_case_is_named_after_it(records, tmp_path):
    assert record_path(tmp_path, "BRATS_001") == tmp_path / "BRATS_001.tfrecord"
    assert records.path("BRATS_001") == records.folder / "BRATS_001.tfrecord"


def test_the_index_is_what_a_person_can_read(records):
    index = json.loads((records.folder / "index.json").read_text())
    assert index["shape"] == [16, 16, 16]
    assert index["regions"] == ["WT", "TC", "ET"]
    assert len(index["digest"]) == 64


def test_records_that_are_missing_are_one_line_that_says_how_to_make_them(tmp_path):
    with pytest.raises(MisError) as error:
        read_records(tmp_path / "none")
    assert str(error.value) == (
        f"the records must exist, got none in {tmp_path / 'none'}; make them with `dvc repro preprocess`"
    )


def test_records_of_other_parameters_are_refused(records, params):
    assert read_records(records.folder, params.data) == records
    other = params.override({"data.target": "whole_tumor"})
    with pytest.raises(MisError, match=r"made with data.target regions, got whole_tumor; make them with"):
        read_records(records.folder, other.data)


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:-20], lambda text: text.replace("{", "["), lambda text: text.replace("digest", "size")],
)
def test_a_damaged_index_is_one_line(records, tmp_path, damage):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    index = folder / "index.json"
    index.write_text(damage(index.read_text()))
    with pytest.raises(MisError, match=r"index.json.*must be as they were written.*dvc repro preprocess"):
        read_records(folder)


def test_a_case_without_its_record_is_named(records, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    (case,) = records.split.test
    (folder / f"{case}.tfrecord").unlink()
    with pytest.raises(MisError, match=f"none for {case}"):
        read_records(folder)


def test_a_record_of_another_size_is_named(records, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    case = records.split.train[0]
    path = folder / f"{case}.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    size = path.stat().st_size
    with pytest.raises(MisError, match=rf"{size} bytes in .*{case}.tfrecord, not {size + 1}; make them with"):
        read_records(folder)


def test_records_of_an_older_format_are_named(records, tmp_path):
    folder = shutil.copytree(records.folder, tmp_path / "records")
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"format": 1}))
    with pytest.raises(MisError, match=r"their format is 1, not 3; make them with"):
        read_records(folder)


def test_the_index_has_what_is_known_of_each_case(records, tiny):
    for case in tiny.cases:
        entry = records.cases[case.id]
        assert entry.size_bytes == records.path(case.id).stat().st_size
        assert entry.geometry.shape == (16, 16, 16)
        statistics = entry.statistics
        assert statistics["WT"] >= statistics["TC"] >= statistics["ET"]
        assert 0 < statistics["brain_voxels"] <= 16**3
        for modality in records.modalities:
            values = statistics[modality]
            assert values["min"] <= values["mean"] <= values["max"]
            assert values["std"] > 0


def test_a_patch_must_fit_into_the_grid(records):
    check_patch(records, None)
    check_patch(records, records.shape)
    x, y, z = records.shape
    with pytest.raises(MisError, match=rf"must fit into the grid of the records, \({x}, {y}, {z}\), got \({x}, {y}, "):
        check_patch(records, (x, y, z + 1))
