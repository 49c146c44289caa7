"""The kill of a job, which takes more than one where processes are born meanwhile, or do not die."""

from __future__ import annotations

from jobworker.runtime.tree import Tree

# Seconds between kills: the first ones for processes that are born while their parents are being killed, which only
# happens without a cgroup; then longer and longer, for one that the kernel does not let go of.
KILL_INTERVAL = 0.02
MAX_KILL_INTERVAL = 1.0
# Seconds after which a process that lives on is reported: it is in a system call that nothing interrupts (state D),
# such as one on a file system that does not answer.
KILL_PATIENCE = 5.0
MAX_REPORTED = 100  # processes; the message has to fit into a packet


class Kill:
    """The kill of all processes of a job, begun at `now`; `interval` is the seconds until it has to be repeated."""

    def __init__(self, tree: Tree, now: float) -> None:
        self._tree = tree
        self._begun = now
        self._unkillable: list[int] = []
        self.interval = KILL_INTERVAL

    def repeat(self, now: float) -> list[int] | None:
        """Kill what lives still; the processes that cannot be killed, if they are others than those told before."""
        self._tree.kill()
        self.interval = min(self.interval * 2, MAX_KILL_INTERVAL)
        if now - self._begun <= KILL_PATIENCE or (left := self._tree.processes()[:MAX_REPORTED]) == self._unkillable:
            return None
        self._unkillable = left
        return left
