import pytest

from tests.warm import warm_server


@pytest.fixture(scope="session")
def warm():
    """A server that starts processes in which TensorFlow and MLflow are imported."""
    with warm_server() as server:
        yield server
