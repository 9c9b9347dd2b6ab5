"""Work in a forked process: killed at a moment of the test's choice, bound by permissions, its words heard."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from paper_toolbox.engine.progress import Silent
from paper_toolbox_cli.app import main


class KillAt(Silent):
    """Kills its process at the given step, or by the clock after so many seconds, in the midst of whatever it does."""

    def __init__(self, step: int | None, seconds: float | None = None) -> None:
        self.step = step
        if seconds is not None:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def advance(self, done: int, text: Callable[[], str]) -> None:
        if done == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(work: Callable[[], Any]) -> int:
    """How a forked process that does ``work`` ends: 0, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        forkserver._forkserver._forkserver_pid = None  # it is no child of this one, which may start its own
        try:
            work()
        except BaseException:  # pytest must not run on in the child
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def bound_by_permissions() -> None:
    """Root may write everywhere: give up what lets it (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH), in this process."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the upper halves
    for call, change in ((libc.capget, 0b000), (libc.capset, 0b110)):
        sets[0] &= ~change
        if call(header, sets) != 0:
            raise OSError(ctypes.get_errno(), "capabilities cannot be given up here")


def said_by(work: Callable[[], Any]) -> tuple[int, list[str]]:
    """How a forked process ends, and the lines that it writes to stderr."""
    reading, writing = os.pipe()

    def heard() -> None:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        work()

    status = in_a_child(heard)
    os.close(writing)
    with os.fdopen(reading) as lines:
        return status, lines.read().splitlines()


def toolbox(*words: str | Path) -> None:
    """A command of the toolbox; its exit status becomes this process's."""
    sys.argv = ["toolbox", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
