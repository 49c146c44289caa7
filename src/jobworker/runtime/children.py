"""Exits of child processes as events of a descriptor."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def heed() -> None:
    """Have a handler of SIGCHLD: the interpreter tells a descriptor only of signals that have one.

    Forked processes inherit it, and need not touch the memory that setting it takes.
    """
    signal.signal(signal.SIGCHLD, _note)


def watch() -> int:
    """A descriptor that polls readable after a child has exited; one a process."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    return read_end


def unwatch() -> None:
    """Forget the descriptor, which a forked process has from its parent."""
    signal.set_wakeup_fd(-1)


def take_event(watch: int) -> None:
    """Have the descriptor poll readable no more, until the next exit."""
    with suppress(BlockingIOError):
        os.read(watch, 4096)


def _note(_number: int, _frame: object) -> None:
    """Do nothing."""
