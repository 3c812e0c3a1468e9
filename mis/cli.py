"""The command line that all commands share: `--params`, `--set`, and exit code 2 with one line for bad input."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType

from mis.errors import MisError, WorkerError
from mis.params.load import load_params
from mis.settings import load_settings


def params_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that takes `--params` and `--set`."""
    spec = sys.modules["__main__"].__spec__
    name = f"python -m {spec.parent}" if spec is not None and spec.parent else None
    parser = argparse.ArgumentParser(prog=name, description=description, allow_abbrev=False)
    parser.add_argument("--params", type=Path, metavar="FILE", help="instead of the project's params.yaml")
    add_overrides(parser)
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--set` to a parser."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value for a parameter, e.g. train.epochs=5; may be repeated",
    )


def run(
    command: Callable[..., None],
    description: str,
    argv: Sequence[str] | None = None,
    *,
    flags: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Read the parameters and the settings, call the command, and return its exit code.

    Args:
        command: The command, called as `command(params, settings)` with a keyword argument for each flag.
        description: For `--help`.
        argv: The arguments; those of the process by default.
        flags: Its options without a value, by name, with a text for `--help`.

    Returns:
        See `exit_code`.
    """
    parser = params_parser(description)
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    arguments = parser.parse_args(argv)

    def with_params() -> None:
        settings = load_settings()
        path = arguments.params or settings.workspace / "params.yaml"
        given = {name: getattr(arguments, name) for name in flags}
        command(load_params(path, arguments.overrides), settings, **given)

    return exit_code(with_params)


def exit_code(command: Callable[[], int | None]) -> int:
    """Call a command and return its exit code; after an error, stderr says why.

    2 after bad input (in one line), 1 after a worker's failure or loss, 130 after Ctrl-C.
    """
    try:
        return command() or 0
    except MisError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is the command's own message
        return 2
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130


@contextmanager
def ends_when_interrupted(within_s: float) -> Iterator[None]:
    """Let Ctrl-C end this process within so many seconds, even where a library's threads still wait for something.

    Ctrl-C raises KeyboardInterrupt first, as it does without this. It is used in the main thread.

    Args:
        within_s: Seconds in which the program may tidy up.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        last = threading.Timer(within_s, os._exit, (130,))
        last.daemon = True
        last.start()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
