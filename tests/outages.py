"""A proxy before an MLflow server: through it the server is there, away, silent, or loses its answers."""

import http.client
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from mis.ports import free_port


class Proxy:
    """Passes requests on to a server, as long as it is up.

    Attributes:
        uri: Its own address, which stays the same.
        loses: Is asked with a request's path, after it was passed on, whether the answer is lost: it becomes a 500.
        turns_away: Is asked with a request's path whether it is not passed on: the answer is the proxy's own bare 400.
        paths: The paths that were asked for.
    """

    def __init__(self, server_uri, *, up=True):
        self.server = urlsplit(server_uri).netloc
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.loses = lambda path: False  # noqa: ARG005
        self.turns_away = lambda path: False  # noqa: ARG005
        self.paths = []
        self.asked = threading.Condition()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._http = None
        if up:
            self.up()

    def up(self):
        """Let the server be there."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self):
                proxy.pass_on(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = pass_on  # noqa: N815

            def log_message(self, *arguments):
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def down(self):
        """Let nobody listen."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def hang(self):
        """Accept requests and answer none, until `resume`."""
        self.goes_on.clear()

    def resume(self):
        """Answer, also what was asked meanwhile: its sender may have given it up long ago."""
        self.goes_on.set()

    def wait_until_asked(self, part, more_than=0):
        """Wait for a request whose path has a part."""
        with self.asked:
            assert self.asked.wait_for(lambda: sum(part in path for path in self.paths) > more_than, 120), part

    def pass_on(self, request):
        with self.asked:
            self.paths.append(request.path)
            self.asked.notify_all()
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.goes_on.wait()
        if self.turns_away(request.path):
            request.send_error(400)
            return
        connection = http.client.HTTPConnection(self.server, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        connection.request(request.command, request.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        with suppress(OSError):  # who has asked waits no longer
            if self.loses(request.path):
                request.send_error(500)
                return
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
