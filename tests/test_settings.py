from pathlib import Path

import pytest

from mis.errors import MisError
from mis.settings import Settings, find_workspace, load_settings


@pytest.fixture
def project(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path


def test_without_variables_everything_is_local_and_absolute(project):
    settings = load_settings({}, start=project)
    assert settings == Settings(root=project, workspace=project, tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")
    assert settings.mlruns == project / "mlruns"
    assert settings.records == project / "data" / "records"
    assert settings.checkpoints == project / "checkpoints"
    assert load_settings({"MIS_LEASES": "/own"}, start=project).leases == Path("/own")


def test_the_workspace_is_the_nearest_folder_with_dvc_yaml(project):
    assert find_workspace(project / "a" / "b") == project
    (project / "a" / "dvc.yaml").write_text("stages: {}\n")
    assert find_workspace(project / "a" / "b") == project / "a"
    assert find_workspace(project) == project


def test_the_workspace_without_dvc_yaml_is_where_one_stands(tmp_path):
    assert find_workspace(tmp_path) == tmp_path


def test_a_folder_named_dvc_yaml_is_no_project(tmp_path):
    (tmp_path / "dvc.yaml").mkdir()
    (tmp_path / "a").mkdir()
    assert find_workspace(tmp_path / "a") == tmp_path / "a"


def test_the_working_directory_is_the_start(project, monkeypatch):
    monkeypatch.chdir(project / "a")
    assert load_settings({}).workspace == project


@pytest.mark.parametrize("variable", ["MIS_ROOT", "DVC_ROOT"])
def test_what_must_last_goes_to_the_root_and_the_rest_stays_in_the_copy(project, tmp_path_factory, variable):
    original = tmp_path_factory.mktemp("original")
    settings = load_settings({variable: str(original)}, start=project)
    assert settings.mlruns.parent == settings.checkpoints.parent == original
    assert settings.records == project / "data" / "records"
    assert settings.tracking_uri == f"sqlite:///{original}/mlruns/mlflow.db"


def test_mis_root_comes_before_dvc_root(project, tmp_path_factory):
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    assert load_settings({"MIS_ROOT": str(first), "DVC_ROOT": str(second)}, start=project).root == first


def test_a_relative_root_becomes_absolute(project, monkeypatch):
    monkeypatch.chdir(project)
    settings = load_settings({"MIS_ROOT": "a"})
    assert settings.root == project / "a"
    assert settings.tracking_uri == f"sqlite:///{project}/a/mlruns/mlflow.db"


def test_variables_are_read(project):
    env = {"MLFLOW_TRACKING_URI": "http://server:5000", "RAY_ADDRESS": "auto", "MIS_DEVICES": "3"}
    settings = load_settings(env, start=project)
    assert (settings.tracking_uri, settings.ray_address, settings.devices) == ("http://server:5000", "auto", 3)


def test_empty_variables_are_as_if_unset(project):
    names = ("MIS_ROOT", "DVC_ROOT", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "MIS_DEVICES", "MIS_OFFLINE")
    assert load_settings(dict.fromkeys(names, ""), start=project) == load_settings({}, start=project)


def test_the_environment_is_that_of_the_process(project, monkeypatch):
    monkeypatch.setenv("MIS_DEVICES", "7")
    assert load_settings(start=project).devices == 7


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " ", "1 2", "²"])
def test_a_number_of_devices_that_is_none_is_refused(project, value):
    with pytest.raises(MisError) as error:
        load_settings({"MIS_DEVICES": value}, start=project)
    assert str(error.value) == (
        f"MIS_DEVICES must be a whole number of at least 1, got {value!r}; unset it to use every device"
    )


def test_offline_is_0_or_1(project):
    assert [load_settings({"MIS_OFFLINE": text}, start=project).offline for text in ("", "0", "1")] == [
        False,
        False,
        True,
    ]
    with pytest.raises(MisError, match=r"MIS_OFFLINE must be 0 or 1, got 'yes'"):
        load_settings({"MIS_OFFLINE": "yes"}, start=project)
