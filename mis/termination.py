"""SIGTERM ends a command as Ctrl-C does: blocks that were begun are ended, and runs are KILLED and not left RUNNING."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_received: list[int] = []
"""The signals that the handler was called for."""


def exit_in_order(number: int, frame: object) -> None:  # noqa: ARG001 - Python's signature of a signal handler
    """Handle a signal: raise SystemExit, with the exit code that a shell gives a process which the signal has ended."""
    _received.append(number)
    raise SystemExit(128 + number)


def was_terminated() -> bool:
    """Return whether SIGTERM is ending this process."""
    return bool(_received)


@contextmanager
def exiting_upon_sigterm() -> Iterator[None]:
    """In this block SIGTERM raises SystemExit(143) in the main thread.

    Outside of the main thread, which alone may set handlers, nothing is done, nor where there is a handler already.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if not in_main_thread or before not in (signal.SIG_DFL, exit_in_order):
        yield
        return
    _received.clear()
    signal.signal(signal.SIGTERM, exit_in_order)
    try:
        yield
    except SystemExit:
        if _received:  # while Ray waits, it catches the exception, and raises another one with the code 1
            raise SystemExit(128 + _received[0]) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
