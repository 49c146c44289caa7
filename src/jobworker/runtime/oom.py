"""What the kernel kills of a job for want of memory, and whether that was the job's end."""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress

from jobworker.linux.cgroup import Cgroup


class OomWatch:
    """The counters of a job's cgroup, all 0 at its start: the group is new.

    The kernel counts kills of whole groups since Linux 5.17. Where it does not, or where processes are killed one by
    one, a kill is the job's end unless the first process outlives it: `fd` polls (POLLPRI) when there may be one.
    """

    def __init__(self, cgroup: Cgroup, poller: select.poll, *, together: bool) -> None:
        self._cgroup = cgroup
        self._poller = poller
        self._survived = 0
        self.fd = -1  # while kills are not watched
        if not together or cgroup.oom_group_kills() is None:
            self._watch()

    def part(self, lives: Callable[[], bool]) -> None:
        """Have processes killed one by one from now on; see `note`."""
        if self.fd < 0:
            self._watch()
            self.note(lives)

    def note(self, lives: Callable[[], bool]) -> None:
        """Count what has been killed while the first process lives on, as `lives` tells."""
        kills = self._cgroup.oom_kills()  # before the look: a kill of the first process must not be counted here
        if lives():
            self._survived = kills

    def was_the_end(self, kills: int) -> bool:
        """Whether a first process that was killed was killed for want of memory; `kills` are those of all processes."""
        return bool(self._cgroup.oom_group_kills()) or (self.fd >= 0 and kills > self._survived)

    def _watch(self) -> None:
        with suppress(FileNotFoundError):  # no memory controller: nothing is killed for its sake
            self.fd = self._cgroup.open_memory_events()
            self._poller.register(self.fd, select.POLLPRI)
