"""A folder on a server that speaks S3: objects whose names begin alike.

An object is there whole or not at all, and can be replaced, not appended to. Who asks is for the environment to say,
with the variables that all of AWS' programs read; nothing of it is kept or shown.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mis.files import new_file
from mis.storage import messages

if TYPE_CHECKING:  # it takes a tenth of a second to import, and most commands need no storage
    from pyarrow.fs import S3FileSystem

CONNECT_S, REQUEST_S, ATTEMPTS = 5.0, 10.0, 2
"""Seconds until a server must have answered a connection, and in which bytes must be sent or come during a request,
however long it takes; and how often each request is tried.

30 MB went through a proxy that lets 0.5 MB/s pass on each connection, in requests of 18 to 21 s.
"""

AGAIN_S = 2.0
"""Seconds between two attempts of who waits for the storage."""

AWAY_S = 3.0
"""Seconds in which a server that has not answered is not asked again: many who ask would each wait for it in turn."""

REFUSALS = re.compile(
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|INVALID_CLIENT_TOKEN_ID|"
    r"UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|INVALID_SIGNATURE|VALIDATION|REQUEST_TIME_TOO_SKEWED|"
    r"REQUEST_EXPIRED|OPT_IN_REQUIRED)|was not a valid URI|HTTP status 4(?!08|29)\d\d"
)
"""In what the library says where the server has answered and refuses: to ask again is of no use."""

WITHOUT_TRAILERS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
"""The variable with which AWS' libraries append no checksum to what they send, unless the server asks for one.

Servers other than AWS' own need not know such appendices; some keep them as a part of the object (s3rver 3.7 does).
"""

ENDPOINT = re.compile(r"(https?://)?([\w.-]+|\[[\da-fA-F:]+\])(:\d{1,5})?/?")
"""What an endpoint may be. The library would look for a host called `ftp`, and for one that is called as the user."""

Content = TypeVar("Content")

Say = Callable[[str], object]
"""Takes a line for people."""


class AwayError(Exception):
    """The server does not answer, or has an error of its own: it may be asked again."""


class RefusedError(Exception):
    """The server has answered, and refuses."""


@dataclass(frozen=True)
class Entry:
    """What a listing says of an object."""

    size: int
    changed_ns: int


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on the storage.

    Attributes:
        url: `s3://BUCKET/FOLDER`.
        wait_s: Seconds for which who cannot go on without it waits for it.
    """

    url: str
    wait_s: float = 600.0

    def below(self, *names: str) -> "RemoteFolder":
        """Return a folder in this one."""
        return RemoteFolder("/".join((self.url, *names)), self.wait_s)

    def list(self) -> dict[str, Entry]:
        """Return all objects in the folder and below it, by their names from here, e.g. `trials/007/values.json`.

        Raises:
            AwayError: The server does not answer, or has not for a call of this process some seconds ago. So do all
                methods.
            RefusedError: It refuses. So do all methods.
        """
        from pyarrow.fs import FileSelector, FileType

        begin = len(self._key) + 1
        selector = FileSelector(self._key, recursive=True, allow_not_found=True)
        found = _asking(lambda system: system.get_file_info(selector))
        return {info.path[begin:]: Entry(info.size, info.mtime_ns or 0) for info in found if info.type == FileType.File}

    def folders(self) -> Sequence[str]:
        """Return the names of the folders in this one, not of those below them."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._key, allow_not_found=True)
        found = _asking(lambda system: system.get_file_info(selector))
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def entry(self, name: str) -> Entry | None:
        """Return what a listing says of one object; None where there is no such object."""
        from pyarrow.fs import FileType

        info = _asking(lambda system: system.get_file_info(self._path(name)))
        return Entry(info.size, info.mtime_ns or 0) if info.type == FileType.File else None

    def read(self, name: str) -> bytes | None:
        """Return the content of an object; None where there is no such object."""

        def read(system: "S3FileSystem") -> bytes:
            with system.open_input_stream(self._path(name)) as stream:
                content: bytes = stream.read()
            return content

        try:
            return _asking(read)
        except FileNotFoundError:
            return None

    def get(self, name: str, path: Path) -> bool:
        """Copy an object into a file, which is there whole or not at all; return whether there was such an object."""

        def get(system: "S3FileSystem") -> None:
            with system.open_input_stream(self._path(name)) as stream, unfinished.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 22)

        try:
            with new_file(path) as unfinished:
                _asking(get)
        except FileNotFoundError:
            return False
        return True

    def put(self, path: Path, name: str, size: int | None = None) -> None:
        """Copy a file into an object, which is replaced at once; of a file that grows the first `size` bytes."""

        def put(system: "S3FileSystem") -> None:
            with path.open("rb") as file, system.open_output_stream(self._path(name)) as stream:
                if size is None:
                    shutil.copyfileobj(file, stream, 1 << 22)
                else:
                    stream.write(file.read(size))

        _asking(put)

    def write(self, content: bytes, name: str) -> None:
        """Write an object."""

        def write(system: "S3FileSystem") -> None:
            with system.open_output_stream(self._path(name)) as stream:
                stream.write(content)

        _asking(write)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there change nothing."""

        def delete(system: "S3FileSystem") -> None:
            for path in map(self._path, names):
                with suppress(FileNotFoundError):
                    system.delete_file(path)

        _asking(delete)

    def delete_folder(self, name: str) -> None:
        """Delete a folder in this one with all that is in it; one that is not there changes nothing.

        It takes five requests for each thousand objects, where `delete` takes three for each object. An empty object
        stands for the folder that it was in from then on, as after `delete`: no listing here shows it.
        """

        def delete(system: "S3FileSystem") -> None:
            with suppress(FileNotFoundError):
                system.delete_dir(self._path(name))

        _asking(delete)

    def delete_folders_of(self, names: Iterable[str]) -> None:
        """Delete the folders that some objects are in; see `delete_folder`."""
        for folder in sorted({name.rpartition("/")[0] for name in names}):
            self.delete_folder(folder)

    def patiently(self, ask: Callable[[], Content], say: Say) -> Content:
        """Ask, and ask again while the server does not answer.

        Args:
            ask: Asks; raises AwayError or RefusedError.
            say: Takes a line where it is waited for, and one where it answers again.

        Raises:
            MisError: It refuses.
            WorkerError: It has not answered for `wait_s` seconds.
        """
        deadline, said = time.monotonic() + self.wait_s, False
        while True:
            try:
                content = ask()
            except RefusedError as error:
                raise messages.refused(self.url, str(error)) from None
            except AwayError as error:
                if time.monotonic() > deadline:
                    raise messages.away(self.url, str(error), self.wait_s) from None
                if not said:
                    say(messages.waits_for(self.url, str(error), self.wait_s))
                said = True
                time.sleep(AGAIN_S)
            else:
                if said:
                    say(messages.answers_again(self.url))
                return content

    @property
    def _key(self) -> str:
        return self.url.removeprefix("s3://")

    def _path(self, name: str) -> str:
        return f"{self._key}/{name}"


NO_ANSWER = "it does not answer"
"""How `probe` begins what it says of a server that may answer later."""


def probe(remote: RemoteFolder, within_s: float = 0.0) -> str:
    """Write, read and delete an object; return why that was not possible, "" where it was.

    Args:
        remote: The folder in which that is tried.
        within_s: Seconds for which a server is waited for that does not answer.
    """
    name, deadline = f"probe-{os.uname().nodename}-{secrets.token_hex(4)}", time.monotonic() + within_s
    while True:
        try:
            remote.write(b"here", name)
            content = remote.read(name)
            remote.delete([name])
        except RefusedError as error:
            return str(error)
        except AwayError as error:
            if time.monotonic() >= deadline:
                return f"{NO_ANSWER}: {error}"
            time.sleep(AGAIN_S)
        else:
            return "" if content == b"here" else "it does not return what was written"


_AWAY: dict[str | None, tuple[float, str]] = {}
"""Until when a server is not asked by this process, and why, by its endpoint."""


def ask_again() -> None:
    """Let this process ask all servers again, also those that have just not answered."""
    _AWAY.clear()


def _asking(ask: "Callable[[S3FileSystem], Content]") -> Content:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    until, reason = _AWAY.get(endpoint, (0.0, ""))
    if time.monotonic() < until:
        raise AwayError(reason)
    try:
        return ask(_file_system(endpoint))
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is not None:  # a file's own
            raise
        reason = short(str(error))
        if REFUSALS.search(str(error)):
            raise RefusedError(reason) from None
        _AWAY[endpoint] = (time.monotonic() + AWAY_S, reason)
        raise AwayError(reason) from None


def short(text: str) -> str:
    """Return what of the library's text a person needs.

    >>> short("When reading information for key 'a' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject: No")
    'access denied'
    >>> short("...: AWS Error NETWORK_CONNECTION during X: curlCode: 7, Could not connect to server; Details: a")
    'network connection: could not connect to server'
    >>> short("...: AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body.")
    'HTTP status 503'
    >>> short("...: AWS Error UNKNOWN (HTTP status 400) during X: No to parse ExceptionName: ExpiredToken Message: ")
    'HTTP status 400: ExpiredToken'
    """
    status, name = re.search(r"HTTP status \d+", text), re.search(r"AWS Error ([A-Z_]+)", text)
    if status:
        unknown = re.search(r"ExceptionName: (\w+)", text)
        return f"{status[0]}: {unknown[1]}" if unknown else status[0]
    if name is None:
        return " ".join(text.split())
    curl = re.search(r"curlCode: \d+, ([^;]+)", text)
    detail = f": {curl[1][:1].lower()}{curl[1][1:].strip()}" if curl else ""
    return f"{name[1].lower().replace('_', ' ')}{detail}"


@cache
def _file_system(endpoint: str | None) -> "S3FileSystem":
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    if endpoint and not ENDPOINT.fullmatch(endpoint):  # it is not repeated: it may have a password
        raise RefusedError("AWS_ENDPOINT_URL must be https://HOST:PORT or http://HOST:PORT")
    if endpoint:
        os.environ.setdefault(*WITHOUT_TRAILERS)
    options: Mapping[str, str | None] = {
        "endpoint_override": endpoint or None,
        "tls_ca_file_path": os.environ.get("AWS_CA_BUNDLE") or None,
    }
    return S3FileSystem(
        **options,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        allow_delayed_open=True,  # a small file is one request then, and not three
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
