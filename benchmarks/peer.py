"""Another Python, with the packages that we are measured beside: how it is named, and how it is run."""

import argparse
import subprocess
from pathlib import Path

from page import clean_commit

from mis.errors import MisError


def peer_parser(description: str, packages: str) -> argparse.ArgumentParser:
    """Return a parser with the options `--peer` and `--write`; `packages` are those of the other Python, in words."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--peer", type=Path, required=True, metavar="PYTHON", help=f"a Python with {packages}")
    parser.add_argument("--write", action="store_true", help="put the table into docs/segmentation.md")
    return parser


def read_options(parser: argparse.ArgumentParser, arguments: list[str] | None, root: Path) -> argparse.Namespace:
    """Return the options; where the table is to be written, nothing may be uncommitted."""
    options = parser.parse_args(arguments)
    if options.write:
        clean_commit(root)
    return options


def run_peer(python: Path, source: str, *arguments: object, packages: str) -> str:
    """Run source in the other Python, and return what it prints."""
    command = [str(part) for part in (python, "-c", source, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MisError(f"--peer must be a Python with {packages}: {reason}", got=python)
    return done.stdout
