"""Ctrl-C as a request that the loop answers between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Request:
    """``asked`` turns true at the first Ctrl-C."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Request]:
    """The first Ctrl-C lets the step end and the state be saved; the second stops at once."""
    request = Request()

    def ask(*_: Any) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    try:
        earlier = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: Ctrl-C is not ours to catch
        yield request
        return
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, earlier)
