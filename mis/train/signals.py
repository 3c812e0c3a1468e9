"""Handlers of signals around what neither Python nor TensorFlow ends by itself."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mis.termination import exit_in_order

DEFAULTS: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
"""The handlers that Python starts with."""


def in_main_thread() -> bool:
    """Return whether this is the main thread, which alone may set handlers."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def signals_as_they_are() -> Iterator[Callable[[], None]]:
    """Yield a function that sets the handlers of SIGTERM and SIGINT to what they were; they are so after the block.

    TensorFlow replaces that of SIGTERM with its own. Outside of the main thread nothing is done.
    """
    if not in_main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in DEFAULTS}

    def restore() -> None:
        for number, handler in before.items():
            # None stands for a handler that C code has set, which Python cannot set again.
            signal.signal(number, DEFAULTS[number] if handler is None else handler)

    try:
        yield restore
    finally:
        restore()


@contextmanager
def ended_by(*numbers: signal.Signals, clean_up: Callable[[], None]) -> Iterator[None]:
    """In this block these signals end the process at once, after it has cleaned up, and with the signal's exit status.

    A handler that is neither Python's own nor that of a command is left alone; outside of the main thread nothing is
    done.
    """
    before = {number: signal.getsignal(number) for number in numbers if in_main_thread()}
    replaced = [number for number, handler in before.items() if handler in (DEFAULTS[number], exit_in_order)]

    def end(number: int, frame: object) -> None:  # noqa: ARG001 - Python's signature of a signal handler
        clean_up()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in replaced:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, before[number])
