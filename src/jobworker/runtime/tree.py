"""All the processes of a job, whatever they did to get away."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Protocol

from jobworker.linux import process
from jobworker.linux.cgroup import Cgroup


class Tree(Protocol):
    """The processes of one job, as its supervisor reaches them."""

    cgroup: Cgroup | None

    def signal(self, number: int, *, group: int | None = None) -> None:
        """Send a signal to every process, or to those of one process group."""
        ...

    def kill(self) -> None:
        """Kill every process. More may be born meanwhile: repeat it until none is left."""
        ...

    def processes(self) -> list[int]:
        """Pids of all processes."""
        ...

    @property
    def empty(self) -> bool:
        """Whether no process lives any more."""
        ...


class CgroupTree:
    """The processes in a cgroup, which one write kills.

    None can leave, unless it may write to another cgroup: root's, or those of a server without root, whose user is its
    jobs' user. What has left is a descendant of this process all the same, a subreaper.
    """

    def __init__(self, cgroup: Cgroup) -> None:
        self.cgroup: Cgroup | None = cgroup
        self._group = cgroup
        self._outside = DescendantTree()

    def signal(self, number: int, *, group: int | None = None) -> None:
        """Send a signal to every process, or to those of one process group."""
        _send(self.processes(), number, group)

    def processes(self) -> list[int]:
        """Pids of all processes in the group."""
        return self._group.processes()

    def kill(self) -> None:
        """Kill every process, at once."""
        self._group.kill()
        if not self._group.populated:
            self._outside.kill()

    @property
    def empty(self) -> bool:
        """Whether no process lives any more."""
        return not self._group.populated and self._outside.empty


class DescendantTree:
    """The descendants of this process, which has to be a subreaper: an orphan among them becomes its child."""

    def __init__(self) -> None:
        self.cgroup: Cgroup | None = None

    def signal(self, number: int, *, group: int | None = None) -> None:
        """Send a signal to every process, or to those of one process group."""
        _send(self.processes(), number, group)

    def processes(self) -> list[int]:
        """Pids of all descendants."""
        return process.descendants(os.getpid())

    def kill(self) -> None:
        """Kill every process that is there at a look; one that is being forked survives it, so repeat."""
        _send(self.processes(), signal.SIGKILL)

    @property
    def empty(self) -> bool:
        """Whether no descendant is left, zombies included: they are for this process to reap."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False


def _send(pids: list[int], number: int, group: int | None = None) -> None:
    for pid in pids:
        # ProcessLookupError: it has just ended. Pids are handed out in turn, so one cannot be somebody else's within
        # the microseconds since it was looked up.
        with suppress(ProcessLookupError, PermissionError):
            if group is None or os.getpgid(pid) == group:
                os.kill(pid, number)
