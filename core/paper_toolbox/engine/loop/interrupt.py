"""Ctrl-C, or a scheduler's SIGTERM, as a request that the loop answers between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Request:
    """``asked`` turns true at the first Ctrl-C or SIGTERM."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Request]:
    """The first Ctrl-C or SIGTERM lets the step end and the state be saved; Ctrl-C after it stops at once."""
    request = Request()

    def ask(number: int, _: Any) -> None:
        if request.asked and number == signal.SIGINT:  # SIGTERM may come twice, from a scheduler and from its launcher
            raise KeyboardInterrupt
        request.asked = True

    try:
        earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: Ctrl-C is not ours to catch
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
