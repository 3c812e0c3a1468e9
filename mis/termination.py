"""SIGTERM ends a command as Ctrl-C does: blocks that were begun are ended, and runs are KILLED and not left RUNNING."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def exit_in_order(number: int, frame: object) -> None:  # noqa: ARG001 - Python's signature of a signal handler
    """Handle a signal: raise SystemExit, with the exit code that a shell gives a process which the signal has ended."""
    raise SystemExit(128 + number)


@contextmanager
def exiting_upon_sigterm() -> Iterator[None]:
    """In this block SIGTERM raises SystemExit(143) in the main thread.

    Outside of the main thread, which alone may set handlers, nothing is done, nor where there is a handler already.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, exit_in_order)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
