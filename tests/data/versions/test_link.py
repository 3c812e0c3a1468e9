"""A folder elsewhere as the data set."""

from pathlib import Path

import pytest

from mis.data.versions.link import link
from mis.errors import MisError
from mis.params.load import load_params
from mis.settings import load_settings

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "project" / "params.yaml").write_bytes(PARAMS.read_bytes())
    return load_settings({}, tmp_path / "project")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scratch" / "Task01").mkdir(parents=True)
    (tmp_path / "scratch" / "Task01" / "dataset.json").write_text('{"training": []}')
    return tmp_path / "scratch" / "Task01"


def root_of(settings):
    return load_params(settings.workspace / "params.yaml").data.root


def test_a_link_and_the_parameter_lead_to_the_folder(settings, folder):
    said = link(folder, settings)
    path = settings.workspace / "data/raw/Task01"
    assert path.readlink() == folder
    assert root_of(settings) == "data/raw/Task01"
    assert (settings.workspace / root_of(settings) / "dataset.json").is_file()
    assert said == [f"{path} -> {folder}", "params.yaml: data.root is now data/raw/Task01"]


def test_a_second_time_changes_nothing(settings, folder):
    link(folder, settings)
    before = (settings.workspace / "params.yaml").stat().st_mtime_ns
    assert link(folder, settings)[0].endswith("is there already")
    assert (settings.workspace / "params.yaml").stat().st_mtime_ns == before


@pytest.mark.parametrize("way", [".", "../Task01", "../Task01/", "imagesTr/.."])
def test_however_it_is_written_the_target_is_absolute(settings, folder, monkeypatch, way):
    (folder / "imagesTr").mkdir()
    monkeypatch.chdir(folder)
    link(Path(way), settings)
    assert (settings.workspace / "data/raw/Task01").readlink() == folder


def test_the_name_is_that_of_a_link_that_is_linked(settings, folder):
    """Who keeps a link to the newest version means the link."""
    newest = folder.with_name("newest")
    newest.symlink_to(folder)
    link(newest, settings)
    assert (settings.workspace / "data/raw/newest").readlink() == newest


def test_a_folder_that_lies_there_needs_no_link(settings, folder):
    path = settings.workspace / "data/raw/Task01"
    path.parent.mkdir(parents=True)
    folder.rename(path)
    link(path, settings)
    assert not path.is_symlink()
    assert root_of(settings) == "data/raw/Task01"


@pytest.mark.parametrize(
    ("name", "says"),
    [("none", "must exist"), ("empty", "must not be empty"), ("file", "must be a folder"), ("phantom", "phantom")],
)
def test_what_cannot_be_a_data_set_is_refused(settings, tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "phantom").mkdir()
    (tmp_path / "phantom" / "dataset.json").write_text('{"training": []}')
    before = root_of(settings)
    with pytest.raises(MisError, match=says):
        link(tmp_path / name, settings)
    assert root_of(settings) == before
    assert not (settings.workspace / "data").exists()


@pytest.mark.parametrize("there", ["a folder", "a file", "a link to /nowhere"])
def test_what_is_there_stays(settings, folder, there):
    path = settings.workspace / "data/raw/Task01"
    path.parent.mkdir(parents=True)
    {"a folder": path.mkdir, "a file": path.touch}.get(there, lambda: path.symlink_to("/nowhere"))()
    before = root_of(settings)
    with pytest.raises(MisError, match=there):
        link(folder, settings)
    assert root_of(settings) == before
    assert path.is_symlink() == there.startswith("a link")


def test_what_is_no_data_set_is_refused_and_nothing_is_changed(settings, tmp_path):
    """The data set is often one folder further down."""
    (tmp_path / "above" / "Task01").mkdir(parents=True)
    (tmp_path / "above" / "Task01" / "dataset.json").write_text('{"training": []}')
    before = root_of(settings)
    with pytest.raises(MisError, match=f"give {tmp_path / 'above' / 'Task01'}"):
        link(tmp_path / "above", settings)
    assert root_of(settings) == before
    assert not (settings.workspace / "data/raw/above").is_symlink()
