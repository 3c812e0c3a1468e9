"""Where MLflow's store is: a SQLite file that can be moved with the project, or a server. Without importing mlflow."""

import re
import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from mis.errors import MisError
from mis.settings import Settings

LOCK_S = 120.0
"""Seconds to wait until another process has opened a SQLite store."""


def database_path(uri: str, root: Path | None = None) -> Path:
    """Return the file of a `sqlite:///` URI; a relative one is below `root`, or the working directory.

    >>> database_path("sqlite:////data/mlruns/mlflow.db").as_posix()
    '/data/mlruns/mlflow.db'
    """
    return (root or Path.cwd()) / uri.removeprefix("sqlite:///")


def artifacts_folder(uri: str) -> Path:
    """Return the folder beside a SQLite store in which the files of its runs are."""
    return database_path(uri).parent / "artifacts"


def tracking_uri(settings: Settings) -> str:
    """Return the tracking URI, checked; SQLite's with an absolute path.

    Raises:
        MisError: It is neither a SQLite file nor a server.
    """
    uri = settings.tracking_uri
    if urlsplit(uri).scheme in ("http", "https"):
        return uri.rstrip("/")
    if not uri.startswith("sqlite:///"):
        raise MisError(
            "MLFLOW_TRACKING_URI must begin with sqlite:///, http:// or https://",
            got=without_password(uri),
            do="put `mlflow server` in front of any other store",
        )
    path = database_path(uri, settings.root)
    if {"%", "?"} & set(str(path)):
        raise MisError("the path of MLflow's store must be free of % and ?, which a URI gives a meaning", got=path)
    return f"sqlite:///{path}"


def location_of(uri: str) -> str:
    """Return one line that tells a person where the runs of a tracking URI are."""
    if uri.startswith("sqlite:"):
        return f"MLflow store {database_path(uri)}; `make ui` shows it"
    return f"MLflow server {without_password(uri)}"


def name_of_store(settings: Settings) -> str:
    """Return the name of the store, without a password; of a file below the root it stays when the project moves.

    Raises:
        MisError: See `tracking_uri`.
    """
    uri = tracking_uri(settings)
    if not uri.startswith("sqlite:"):
        return without_password(uri)
    path = database_path(uri)
    return f"sqlite:///{path.relative_to(settings.root) if path.is_relative_to(settings.root) else path}"


def lock(database: Path) -> AbstractContextManager[object]:
    """Return the lock of a SQLite store.

    Without it, eight processes that open a missing database migrate it at once, which corrupts it for
    good (MLflow 3.17: "duplicate column name: step").
    """
    return FileLock(database.with_suffix(".lock"), timeout=LOCK_S)


def probe(path: Path) -> None:
    """Open a SQLite file once: where that fails, MLflow would try again for 100 s, with a warning each time."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA schema_version")


def without_password(uri: str) -> str:
    """Return a URI without the user's name and password.

    >>> without_password("https://me:secret@mlflow.example:5000/x")
    'https://mlflow.example:5000/x'
    """
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


DATABASE_ERROR = re.compile(r"\((?:\w+\.)+\w*Error\) (.+)")
"""How SQLAlchemy quotes the error of a database, before the statement and where one may read about it."""

SQLALCHEMY_NOTES = ("[SQL:", "[parameters:", "(Background on this error at:")
"""How the lines begin that SQLAlchemy adds to an error."""


def reason_of(error: Exception) -> str:
    r"""Return the core of an error that urllib3, requests, SQLAlchemy and mlflow have each wrapped, on one line.

    >>> reason_of(OSError("Max retries exceeded (Caused by NewConnectionError('x: [Errno 111] Connection refused'))"))
    '[Errno 111] Connection refused'
    >>> reason_of(OSError("Max retries exceeded (Caused by ResponseError('too many 500 error responses'))"))
    'too many 500 error responses'
    >>> reason_of(OSError("(sqlite3.OperationalError) database is locked\n[SQL: x]\n(Background on this error at: y)"))
    'database is locked'
    >>> reason_of(OSError("QueuePool limit of size 5 reached (Background on this error at: x)"))
    'QueuePool limit of size 5 reached'
    >>> reason_of(TimeoutError())
    'TimeoutError'
    """
    if quoted := DATABASE_ERROR.search(str(error)):
        return quoted[1].strip()[:160]
    _, caused, cause = str(error).rpartition("Caused by")
    if caused:
        text = re.sub(r"^\W*\w+\(", "", cause.rpartition(": ")[2])  # the name of the error's class
        text = " ".join(text.strip("\"')( ").split())
        return f"{text})" if text.count("(") > text.count(")") else text
    lines = [line for line in cause.strip().splitlines() if not line.startswith(SQLALCHEMY_NOTES)]
    return (lines or [type(error).__name__])[-1].partition(f" {SQLALCHEMY_NOTES[-1]}")[0][:160]
