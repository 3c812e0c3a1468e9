"""Records for parameters that are not the pipeline's."""

import os

import pytest

from mis.data.records.prepare import find_records
from mis.data.records.reader import read_records
from mis.errors import MisError
from mis.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(project, tiny_root):
    """The pipeline's records are those of regions."""
    (project / "data" / "raw").mkdir()
    (project / "data" / "raw" / "phantom").symlink_to(tiny_root)
    return Settings(root=project, workspace=project, tracking_uri="")


def test_the_pipelines_own_are_taken_where_they_fit(settings, params):
    assert find_records(params.data, settings) == settings.records
    assert sorted(path.name for path in settings.records.parent.iterdir()) == ["raw", "records"]


def test_others_are_made_once_for_the_same_files(settings, params, tiny_root, capsys):
    whole = params.override({"data.target": "whole_tumor"}).data
    folder = find_records(whole, settings)
    assert folder.parent == settings.records.parent
    assert folder != settings.records
    assert read_records(folder, whole).regions == ("WT",)
    assert f"those for these are made in {folder}" in capsys.readouterr().err
    before = folder.stat().st_mtime_ns
    assert find_records(whole, settings) == folder
    assert folder.stat().st_mtime_ns == before
    assert read_records(settings.records, params.data).params.target == "regions"
    label = next((tiny_root / "labelsTr").glob("*.nii.gz"))
    times = label.stat()
    os.utime(label, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    try:
        assert find_records(whole, settings) != folder, "another file may have another content"
    finally:
        os.utime(label, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_without_a_data_set_the_reason_is_told(settings, params):
    (settings.workspace / "data" / "raw" / "phantom").unlink()
    with pytest.raises(MisError, match=r"were made with data\.target regions, got whole_tumor"):
        find_records(params.override({"data.target": "whole_tumor"}).data, settings)
