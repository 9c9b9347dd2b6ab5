"""How a run shows itself: a bar on a terminal, a line an epoch elsewhere, nothing on other processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Show(Protocol):
    """What a run tells while it goes on."""

    def start(self, title: str, total: int, done: int, unit: str = "steps") -> None: ...
    def advance(self, done: int, text: Callable[[], str]) -> None: ...
    def line(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Silent:
    """Shows nothing."""

    def start(self, title: str, total: int, done: int, unit: str = "steps") -> None: ...
    def advance(self, done: int, text: Callable[[], str]) -> None: ...
    def line(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Lines:
    """Plain lines on stderr, for logs and pipes."""

    def start(self, title: str, total: int, done: int, unit: str = "steps") -> None:
        self.line(f"{title}: {total} {unit}" + (f", {done} done" if done else ""))

    def advance(self, done: int, text: Callable[[], str]) -> None: ...

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None: ...


class Bar:
    """A progress bar with loss, metric and the time left; redrawn at most ten times a second."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self.bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=console, transient=True)
        self.task: Any = None
        self.drawn = 0.0

    def start(self, title: str, total: int, done: int, unit: str = "steps") -> None:
        self.task = self.bar.add_task(title, total=total, completed=done, text="")
        self.bar.start()

    def advance(self, done: int, text: Callable[[], str]) -> None:
        if (now := time.monotonic()) - self.drawn > 0.1:
            self.drawn = now
            self.bar.update(self.task, completed=done, text=text())

    def line(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        self.bar.stop()


def shown() -> Show:
    """The bar when stderr is a terminal, else lines."""
    return Bar() if sys.stderr.isatty() else Lines()
