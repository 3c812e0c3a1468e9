"""The real PostgreSQL, with the server of MLflow as pipelines/server/mlflow-server starts it."""

import base64
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from mis.ports import free_port
from tests.cluster.machines import give_up
from tests.conftest import ROOT

USER = "postgres"


def programs():
    """Return the folder of PostgreSQL's programs; skip, or fail, the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or shutil.which("runuser") is None:
        give_up("there is no PostgreSQL: apt-get install postgresql")
    return found[-1].parent


@contextmanager
def postgres(base):
    """Yield the address of a database, with a password, of a server of PostgreSQL that ends with the block."""
    bin_folder, folder, port = programs(), base / "postgres", free_port()
    folder.mkdir()
    shutil.chown(folder, USER)
    for parent in folder.parents:  # PostgreSQL runs as a user of its own, which must get there
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o711)
    password = secrets.token_hex(16)
    word = folder / "password"
    word.write_text(password)
    shutil.chown(word, USER)
    _as_postgres(bin_folder / "initdb", "-D", folder / "data", "-A", "scram-sha-256", f"--pwfile={word}")
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(port)]
    log = (base / "postgres.log").open("wb")
    command = ["runuser", "-u", USER, "--", bin_folder / "postgres", "-D", folder / "data", *options]
    with log, subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            ready = [bin_folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
            _wait(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, process)
            env = os.environ | {"PGPASSWORD": password}
            create = [bin_folder / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", USER, "mlflow"]
            subprocess.run(create, env=env, check=True)
            yield f"postgresql://{USER}:{password}@127.0.0.1:{port}/mlflow"
        finally:
            os.killpg(process.pid, signal.SIGINT)  # a fast shutdown


@contextmanager
def shared_mlflow(base, host):
    """Yield the variables with which a user reaches a server of MLflow with PostgreSQL, passwords and TLS.

    The user's account was made by the admin, as docs/cluster.md has it.

    Args:
        base: A folder.
        host: The address at which it listens.
    """
    port, password = free_port(host), "p%ss-" + secrets.token_hex(12)
    key, certificate = base / "key.pem", base / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mlflow"]
    made += ["-addext", f"subjectAltName=IP:{host}", "-keyout", key, "-out", certificate]
    subprocess.run(made, capture_output=True, check=True)
    with postgres(base) as database, (base / "mlflow.log").open("wb") as log:
        env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_ARTIFACTS": str(base / "artifacts"),
            "MLFLOW_ADMIN_PASSWORD": password,
            "MLFLOW_HOST": host,
            "MLFLOW_PORT": str(port),
            "MLFLOW_TLS_KEY": str(key),
            "MLFLOW_TLS_CERTIFICATE": str(certificate),
            "MLFLOW_WORKERS": "2",
        }
        command = [ROOT / "pipelines" / "server" / "mlflow-server"]
        with subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True) as process:
            try:
                _wait(lambda: _answers(f"https://{host}:{port}/health", certificate), process)
                own = "%a-" + secrets.token_hex(12)
                _make_account(f"https://{host}:{port}", certificate, password, {"username": "me", "password": own})
                yield {
                    "MLFLOW_TRACKING_URI": f"https://{host}:{port}",
                    "MLFLOW_TRACKING_USERNAME": "me",
                    "MLFLOW_TRACKING_PASSWORD": own,
                    "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate),
                }
            finally:
                os.killpg(process.pid, signal.SIGTERM)


def _make_account(uri, certificate, admin_password, account):
    (path,) = re.findall(r"(/api/\S+/users/create)", (ROOT / "docs" / "cluster.md").read_text())
    credentials = base64.b64encode(f"admin:{admin_password}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
    request = urllib.request.Request(f"{uri}{path}", json.dumps(account).encode(), headers)  # noqa: S310 - https
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=certificate)):  # noqa: S310
        pass


def _answers(uri, certificate):
    try:
        with urllib.request.urlopen(uri, context=ssl.create_default_context(cafile=certificate)):  # noqa: S310 - https
            return True
    except urllib.error.URLError:
        return False


def _as_postgres(*command):
    subprocess.run(["runuser", "-u", USER, "--", *map(str, command)], capture_output=True, check=True, cwd="/")


def _wait(holds, process, within_s=120):
    deadline = time.monotonic() + within_s
    while not holds():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, f"waited {within_s} s"
        time.sleep(0.2)
