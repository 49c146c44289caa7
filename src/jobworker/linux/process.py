"""Processes as /proc shows them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NamedTuple

from jobworker.linux import kernel_file


class ProcessId(NamedTuple):
    """A process beyond the reuse of its pid: `start_ticks` is its start in clock ticks since boot."""

    pid: int
    start_ticks: int
    boot_id: str


def boot_id() -> str:
    """The id that the kernel drew at this boot."""
    return kernel_file.read("/proc/sys/kernel/random/boot_id").decode().strip()


def identify(pid: int) -> ProcessId:
    """The identity of a living process. Raises `ProcessLookupError`."""
    return ProcessId(pid, int(_stat(pid)[_START_TIME]), boot_id())


def is_dying(pid: int) -> bool:
    """Whether a process has ended, or has been killed and is about to end."""
    try:
        status = dict(
            line.split(b":", 1) for line in kernel_file.read(f"/proc/{pid}/status").splitlines() if b":" in line
        )
        exiting = int(_stat(pid)[_FLAGS]) & _PF_EXITING
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = int(status[b"SigPnd"], 16) | int(status[b"ShdPnd"], 16)
    return bool(exiting or pending >> (signal.SIGKILL - 1) & 1)


def descendants(ancestor: int) -> list[int]:
    """Pids of all descendants of a process that are not zombies, by a look at every process there is."""
    parents: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for pid in pids():
        with suppress(ProcessLookupError):
            stat = _stat(pid)
            parents.setdefault(int(stat[_PARENT]), []).append(pid)
            if stat[_STATE] in _DEAD:
                zombies.add(pid)
    found: list[int] = []
    todo = [ancestor]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return [pid for pid in found if pid not in zombies]


def in_session_of(leader: ProcessId) -> list[int]:
    """Pids of the living processes of the session that a process led, whether or not it lives still."""
    found: list[int] = []
    for pid in pids():
        with suppress(ProcessLookupError):
            stat = _stat(pid)
            if pid == leader.pid and int(stat[_START_TIME]) != leader.start_ticks:
                return []  # the pid is somebody else's now, which the kernel allows once the session is empty
            of_it = int(stat[_SESSION]) == leader.pid and int(stat[_START_TIME]) >= leader.start_ticks
            if of_it and stat[_STATE] not in _DEAD:
                found.append(pid)
    return found


def with_environment(entry: bytes) -> list[int]:
    """Pids of the processes whose environment had an entry ("KEY=value") when they executed their program.

    It finds what left its session and its parent; not what executed a program with an environment of its own making,
    nor processes that we may not look at.
    """
    found: list[int] = []
    for pid in pids():
        # OSError: it is gone, or it is not ours to look at
        with suppress(OSError):
            if entry in kernel_file.read(f"/proc/{pid}/environ").split(b"\0"):
                found.append(pid)
    return found


def pids() -> list[int]:
    """All pids that there are."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


# Positions in /proc/PID/stat after the name of the program, which may hold spaces and parentheses (proc(5)).
_STATE, _PARENT, _SESSION, _FLAGS, _START_TIME = 0, 1, 3, 6, 19
_PF_EXITING = 0x4  # in the flags of the process
_DEAD = (b"Z", b"X")


def _stat(pid: int) -> list[bytes]:
    try:
        return kernel_file.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
