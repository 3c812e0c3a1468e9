"""What the tests of searches share."""

import pytest

from mis.settings import Settings
from mis.track.mlflow import MlflowTracker


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """The file of an MLflow store without runs, to be copied: MLflow takes seconds to make one."""
    root = tmp_path_factory.mktemp("store")
    MlflowTracker(Settings(root=root, workspace=root, tracking_uri=f"sqlite:///{root}/mlruns/mlflow.db"))
    return root / "mlruns" / "mlflow.db"


@pytest.fixture
def project(project, empty_store):
    """A folder as that of all tests, with an MLflow store."""
    (project / "mlruns").mkdir()
    (project / "mlruns" / "mlflow.db").write_bytes(empty_store.read_bytes())
    return project
