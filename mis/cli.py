"""What all commands share: the options `--params` and `--set`, exit codes, and Ctrl-C."""

import argparse
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType

from mis.errors import MisError, NodeAwayError, WorkerError
from mis.files import DiskFullError, is_disk_full
from mis.params.load import Params, load_params
from mis.settings import Settings, load_settings
from mis.storage.messages import is_away
from mis.storage.path import with_storage
from mis.termination import exiting_upon_sigterm


def params_parser(description: str, flags: Mapping[str, str] = MappingProxyType({})) -> argparse.ArgumentParser:
    """Return a parser with the options `--params` and `--set`, and options without a value; see `run`."""
    main_spec = sys.modules["__main__"].__spec__
    program = f"python -m {main_spec.parent}" if main_spec is not None and main_spec.parent else None
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument("--params", type=Path, metavar="FILE", help="instead of the project's params.yaml")
    add_overrides(parser)
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the option `--set` to a parser."""
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
        description: The description of the command in `--help`.
        argv: The arguments; by default those of the process.
        flags: The options of the command without a value, by name, with a text for `--help`.

    Returns:
        The exit code, see `exit_code`.
    """
    arguments = params_parser(description, flags).parse_args(argv)

    def with_params() -> None:
        names = [name.replace("-", "_") for name in flags]
        flag_values = {name: getattr(arguments, name) for name in names}
        command(*load(arguments.params, arguments.overrides), **flag_values)

    return exit_code(with_params)


def load(params: Path | None = None, overrides: Sequence[str] = ()) -> tuple[Params, Settings]:
    """Read the parameters and the settings.

    Args:
        params: The file of the parameters; by default the project's.
        overrides: Other values, as `name=value`.

    Returns:
        The parameters that decide about results, and the settings, which have the others: where things are kept.

    Raises:
        MisError: See `load_params` and `load_settings`.
    """
    settings = load_settings()
    loaded = load_params(params or settings.workspace / "params.yaml", overrides)
    return loaded.without_storage(), with_storage(settings, loaded.storage)


def exit_code(command: Callable[[], int | None]) -> int:
    """Call a command and return its exit code; after an error the message is printed to stderr.

    The exit code is 2 after an error of the input, 75 where the same command may succeed in a minute because a node or
    the storage did not answer, 1 after the failure or loss of a worker, and 130 after Ctrl-C. SIGTERM raises
    SystemExit(143).
    """
    try:
        with exiting_upon_sigterm():
            return command() or 0
    except MisError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command prints its error
        return os.EX_TEMPFAIL if isinstance(error, NodeAwayError) else 2
    except BrokenPipeError:
        if not _reader_has_gone():  # another pipe or a connection broke
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if not is_disk_full(error):
            raise
        print(f"error: {DiskFullError(Path(error.filename or tempfile.gettempdir()))}", file=sys.stderr)  # noqa: T201
        return 2
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return os.EX_TEMPFAIL if is_away(str(error)) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130


def _reader_has_gone() -> bool:
    """Return whether who reads the output, as `head`, has had enough."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


@contextmanager
def ends_when_interrupted(within_s: float) -> Iterator[None]:
    """Let Ctrl-C end this process within some seconds, even where threads of a library are still waiting.

    Ctrl-C raises KeyboardInterrupt first, as it does outside the block. Only the main thread may enter the block.

    Args:
        within_s: Seconds between Ctrl-C and the end of the process, in which the program may clean up.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        exit_timer = threading.Timer(within_s, os._exit, (130,))
        exit_timer.daemon = True
        exit_timer.start()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
