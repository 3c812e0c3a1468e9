"""`python -m mis.track`: the MLflow UI of this project's store, the links that show the comparison, and `sync`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mis.cli import exit_code
from mis.errors import MisError
from mis.ports import free_port
from mis.settings import Settings, load_settings
from mis.track.links import comparison_links
from mis.track.mlflow import MlflowTracker
from mis.track.server import HOST, server, stopping_on_signals, wait_until_ready
from mis.track.store import database_path, tracking_uri
from mis.track.sync import sync


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the UI and wait until it is stopped, or print the links alone; or deliver what waits in outboxes.

    Returns:
        0; 2 after bad input, 1 if the server ended by itself, or something still waits or was refused.
    """
    parser = argparse.ArgumentParser("python -m mis.track", description="Show the runs in the MLflow UI.")
    parser.add_argument("--port", type=int, default=5000, help="the next free one is taken if it is in use")
    parser.add_argument("--links", action="store_true", help="print the links without starting the UI")
    commands = parser.add_subparsers(dest="command", metavar="sync")
    sync_parser = commands.add_parser("sync", help="deliver to MLflow what waits in outboxes")
    sync_parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="an outbox, or a folder of outboxes, that was copied from elsewhere; by default those of this project",
    )
    sync_parser.add_argument("--refused", action="store_true", help="try again what MLflow has refused before")
    options = parser.parse_args(arguments)
    if options.command == "sync":
        return exit_code(lambda: sync(load_settings(), options.folder, print, refused=options.refused))
    return exit_code(lambda: show(load_settings(), options.port, links_only=options.links))


def show(settings: Settings, port: int, *, links_only: bool) -> int:
    """Print the links, at the server that MLFLOW_TRACKING_URI names or at one that is started here."""
    uri = tracking_uri(settings)
    if not uri.startswith("sqlite:"):
        print_links(uri, MlflowTracker(settings))
        return 0
    if not database_path(uri).is_file():
        raise MisError("there must be runs to show", got=f"no {database_path(uri)}", do="run `make repro` first")
    if links_only:
        print_links(f"http://{HOST}:{port}", MlflowTracker(settings))
        return 0
    return serve(settings, uri, port)


def print_links(base_url: str, tracker: MlflowTracker) -> None:
    """Print the pages, one a line, and the UI's own address last."""
    for link in comparison_links(base_url, tracker):
        print(f"{link.title + ':':<34} {link.url}")
    print(f"{'MLflow:':<34} {base_url}", flush=True)


def next_port(wanted: int) -> int:
    """Return the first free port from `wanted` on.

    Raises:
        MisError: `wanted` is no port, or none of the next ones is free.
    """
    if not 1 <= wanted <= 65535:
        raise MisError("--port must be from 1 to 65535", got=wanted)
    return free_port(HOST, first=wanted)


def serve(settings: Settings, uri: str, wanted_port: int) -> int:
    """Run the server until a signal ends it."""
    port = next_port(wanted_port)
    if port != wanted_port:
        print(f"port {wanted_port} is in use; taking {port}")
    base_url, log = f"http://{HOST}:{port}", database_path(uri).with_name("ui.log")
    try:
        with stopping_on_signals():
            print(f"starting the MLflow UI at {base_url} (about 10 s); Ctrl-C stops it", flush=True)
            tracker = MlflowTracker(settings)  # first: under its lock the database is made
            with server(uri, port, log) as process:
                wait_until_ready(process, base_url, log)
                print_links(base_url, tracker)
                process.wait()
    except KeyboardInterrupt:
        return 0
    print(f"error: the MLflow UI ended by itself; {log} says why", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
