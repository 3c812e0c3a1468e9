import pytest

from mis.ports import free_port
from mis.settings import load_settings
from mis.track.server import server, wait_until_ready


@pytest.fixture
def settings(tmp_path):
    return load_settings({"MIS_ROOT": str(tmp_path)})


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory):
    """A real MLflow server, for all tests together: it takes 7 to 11 s to start."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    uri, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with server(f"sqlite:///{folder / 'mlflow.db'}", port, log) as process:
        wait_until_ready(process, uri, log)
        yield uri
