"""A folder on a server of S3's kind: objects that are there whole or not at all, and a server that goes away."""

import os
import socket
import socketserver
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mis.errors import MisError, WorkerError
from mis.storage import remote as module
from mis.storage.remote import AwayError, RefusedError, RemoteFolder
from tests.s3 import SECRET

DAY = timedelta(days=1)


def test_what_is_put_is_listed_read_fetched_and_deleted(remote, tmp_path):
    assert remote.list() == {}
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    remote.put(source, "a/whole")
    remote.put(source, "part", 4)
    remote.write(b"text", "a/b/text")
    assert {name: entry.size for name, entry in remote.list().items()} == {"a/whole": 10, "part": 4, "a/b/text": 4}
    assert {name: entry.size for name, entry in remote.below("a").list().items()} == {"whole": 10, "b/text": 4}
    assert remote.read("part") == b"0123"
    assert remote.get("a/whole", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == b"0123456789"
    remote.write(b"other", "part")
    assert remote.read("part") == b"other"
    remote.delete(["part", "a/whole", "never there"])
    assert list(remote.list()) == ["a/b/text"]


def test_a_folder_is_deleted_with_all_that_is_in_it_and_no_object_stands_for_it(storage_server, remote):
    top = remote.url.rpartition("/")[2]
    for name in ("epochs/1/last.npz", "epochs/1/deep/er", "epochs/10/last.npz", "other"):
        remote.write(b"x", name)
    remote.delete(["epochs/1/deep/er"])
    remote.delete_folder("epochs/1")
    remote.delete_folder("never there")
    below = [key.removeprefix(f"{top}/") for key in storage_server.raw_listing() if key.startswith(f"{top}/")]
    assert below == ["epochs/", "epochs/10/last.npz", "other"], "only the folder that it was in has such an object"
    assert set(remote.list()) == {"epochs/10/last.npz", "other"}
    remote.below("epochs").delete_folder("10")
    assert list(remote.list()) == ["other"]


def test_one_object_is_looked_at_as_a_listing_has_it(remote):
    remote.write(b"12345", "a/b")
    assert remote.entry("a/b").size == 5
    assert remote.entry("a/b").changed_ns // 10**9 == remote.list()["a/b"].changed_ns // 10**9
    assert remote.entry("a") is None, "a folder"
    assert remote.entry("a/c") is None


def test_what_is_not_there_is_none_and_leaves_no_file(remote, tmp_path):
    assert remote.read("nothing") is None
    (tmp_path / "kept").write_text("as before")
    assert not remote.get("nothing", tmp_path / "kept")
    assert not remote.get("nothing", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "as before"


def test_a_missing_file_of_this_machine_is_its_own_error(remote, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        remote.put(tmp_path / "nowhere", "object")


@pytest.mark.usefixtures("storage_server")
def test_a_bucket_that_does_not_exist_is_refused_in_one_line():
    folder = RemoteFolder("s3://no-such-bucket/folder", 0.5)
    with pytest.raises(RefusedError, match="no such bucket"):
        folder.write(b"", "a")
    with pytest.raises(
        MisError, match=r"must let this process read and write s3://no-such-bucket/folder \(no such"
    ) as e:
        folder.patiently(lambda: folder.write(b"", "a"), print)
    assert str(e.value).endswith("make the bucket, or name another one in storage.path")
    assert SECRET not in str(e.value)


def test_a_server_that_is_away_is_waited_for_and_said_so(storage_server, remote):
    said = []
    remote.write(b"before", "object")
    patient = RemoteFolder(remote.url, 60)
    storage_server.down()
    try:
        with pytest.raises(AwayError, match="network connection: could not connect"):
            remote.read("object")
        with pytest.raises(WorkerError, match=r"has not answered for 0 s \(network connection"):
            remote.patiently(lambda: remote.read("object"), said.append)
    finally:
        threading.Timer(1.0, storage_server.up).start()
    said.clear()
    assert patient.patiently(lambda: patient.read("object"), said.append) == b"before"
    assert [line.partition(remote.url)[2] for line in said] == [
        " does not answer (network connection: could not connect to server): it is waited for, for 60 s at most",
        " answers again: what has waited is there",
    ]


@contextmanager
def answering(status, code):
    """Yield the address of a server that answers each request with this error."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            content = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "RequestTimeTooSkewed", RefusedError, "request time too skewed"),
        (400, "RequestExpired", RefusedError, "request expired"),
        (400, "ValidationError", RefusedError, "validation"),
        (400, "ExpiredToken", RefusedError, "HTTP status 400: ExpiredToken"),
        (403, "AccessDenied", RefusedError, "access denied"),
        (503, "SlowDown", AwayError, "slow down"),
        (500, "InternalError", AwayError, "internal failure"),
    ],
)
def test_what_asking_again_does_not_mend_is_a_refusal(remote, monkeypatch, status, code, kind, says):
    with answering(status, code) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(kind) as error:
            remote.list()
    assert str(error.value) == says


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://host", "http://", "http://[x", "a host", "https://user:PASSWORD@host:9000", "http://host:1/a?b=c"],
)
def test_an_endpoint_that_is_none_is_a_refusal_and_not_repeated(remote, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(RefusedError, match=r"^AWS_ENDPOINT_URL must be https://HOST:PORT or http://HOST:PORT$"):
        remote.list()


def test_a_server_need_not_know_what_aws_libraries_append_to_an_object(remote, monkeypatch):
    """Some keep the checksum that is appended as a part of the object."""
    monkeypatch.delenv(module.WITHOUT_TRAILERS[0], raising=False)
    sent = []

    class Keeps(BaseHTTPRequestHandler):
        def do_PUT(self):
            sent.append((self.rfile.read(int(self.headers["Content-Length"])), self.headers["Content-Encoding"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Keeps) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        remote.write(b"content", "name")
        server.shutdown()
    assert sent == [(b"content", None)]


def make_certificate(folder):
    """Make a certificate of this machine's own, and return its file and that of its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "storage")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + DAY)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@contextmanager
def behind_tls(uri, certificate, key):
    """Yield the address of a proxy with TLS before a server."""
    host, port = uri.removeprefix("http://").split(":")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self):
            with (
                suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection((host, int(port))) as there,
            ):
                back = threading.Thread(target=forward, args=(there, client), daemon=True)
                back.start()
                forward(client, there)
                back.join(1.0)

    def forward(source, target):
        with suppress(OSError):
            while content := source.recv(1 << 16):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_server_with_a_certificate_of_its_own_is_known_by_its_file(storage_server, remote, tmp_path, monkeypatch):
    certificate, key = make_certificate(tmp_path)
    with behind_tls(storage_server.uri, certificate, key) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(AwayError, match="peer certificate"):
            remote.list()
    with behind_tls(storage_server.uri, certificate, key) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        remote.write(b"content", "a/name")
        assert remote.read("a/name") == b"content"
        assert list(remote.list()) == ["a/name"]


def fail(remote):
    """Return how long a call takes that the server does not answer, and why it failed."""
    begun = time.monotonic()
    with pytest.raises(AwayError) as error:
        remote.list()
    return time.monotonic() - begun, str(error.value)


def test_a_server_that_accepts_and_does_not_answer_is_away_and_is_waited_for_once(remote, monkeypatch):
    monkeypatch.setattr(module, "REQUEST_S", 1.0)
    there = os.environ["AWS_ENDPOINT_URL"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        took_s, reason = fail(remote)
        assert reason == "network connection: timeout was reached"
        assert 1.0 < took_s < 10.0, "two attempts"
        for _ in range(5):
            again_s, same = fail(remote)
            assert same == reason
            assert again_s < 0.5
        monkeypatch.setenv("AWS_ENDPOINT_URL", there)
        assert remote.list() == {}, "another server is asked"


def test_a_server_that_was_away_is_asked_again_after_some_seconds(storage_server, remote, monkeypatch):
    monkeypatch.setattr(module, "AWAY_S", 0.5)
    monkeypatch.setattr("tests.s3.ask_again", lambda: None)
    storage_server.down()
    fail(remote)
    until, _ = module._AWAY[storage_server.uri]
    storage_server.up()
    time.sleep(max(0.0, until - time.monotonic()))
    assert remote.list() == {}
