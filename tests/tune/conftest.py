"""What the tests of searches share."""

import pytest

from tests.searches import tracker_of
from tests.warm import SEARCHES, warm_server


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """A clock that stands at 0."""
    return Clock()


@pytest.fixture(scope="session")
def warm_searches():
    """A server that starts searches in which Ray is imported too, which then knows no other token than there was."""
    with warm_server(*SEARCHES) as server:
        yield server


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """The file of an MLflow store without runs, to be copied: MLflow takes seconds to make one."""
    root = tmp_path_factory.mktemp("store")
    tracker_of(root)  # makes it
    return root / "mlruns" / "mlflow.db"


@pytest.fixture
def project(project, empty_store):
    """A folder as that of all tests, with an MLflow store."""
    (project / "mlruns").mkdir()
    (project / "mlruns" / "mlflow.db").write_bytes(empty_store.read_bytes())
    return project
