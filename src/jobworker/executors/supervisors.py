"""The supervisors of the jobs of this machine: one is had for a directory, or found again."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from jobworker.core.job import StopRequest
from jobworker.executors.spawner import Spawner
from jobworker.executors.supervision import Supervision
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.protocol import Message

# The kernel closes the descriptors of a process that has ended one by one, the control socket before the lock or after.
LOCK_PATIENCE = 5.0
LOCK_INTERVAL = 0.005
# A kill takes milliseconds, unless the supervisor has been stopped or the program hangs on a file system.
END_PATIENCE = 5.0

BURY: Message = {"op": "bury"}


class Supervisors:
    """Those that a spawner forks, and those that are there."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner

    async def stand_by(self, directory: JobDir, cgroup: str | None) -> Supervision:
        """Have a supervisor stand by for the job of a directory, which will have this cgroup."""
        return await self._request({"op": "supervise", "cgroup": cgroup}, directory)

    async def bury(self, directory: JobDir) -> Supervision:
        """Have the processes of a job ended whose supervisor has died, and the end recorded."""
        return await self._request(BURY, directory)

    async def find(self, directory: JobDir) -> Supervision | None:
        """A connection to the supervisor of a job; `None` if it is dead."""
        lock = directory.lock()
        if lock is None:
            with suppress(ConnectionRefusedError):
                return Supervision(directory.connect())
            lock = await _lock(directory)  # it was just going
        os.close(lock)
        return None

    async def _request(self, request: Message, directory: JobDir) -> Supervision:
        """Have a supervisor forked for a directory, and connect to it.

        The lock and the socket are made here and handed over, so that there is no moment at which somebody who looks
        could take the job for dead or find nobody to ask.
        """
        lock = await _lock(directory)
        try:
            with directory.listen() as listener:
                supervision = Supervision(directory.connect())
                await self._spawner.request(request, [directory.fd, lock, listener.fileno()])
        finally:
            os.close(lock)
        return supervision


async def start_time(supervision: Supervision, deadline: float) -> datetime:
    """When the program was executed; until `deadline`, a time of the loop, it may take.

    Raises what `Supervision.started` does, and `TimeoutError`.
    """
    await asyncio.wait([supervision.started], timeout=deadline - asyncio.get_running_loop().time())
    if not supervision.started.done():
        raise TimeoutError(errno.ETIMEDOUT, "no supervisor has answered")
    return supervision.started.result()


async def end_unwanted(supervision: Supervision, owner: str) -> None:
    """Kill a job that nobody wants any more, and wait for that, though not for ever."""
    stop = StopRequest(requested_by=owner, request_time=datetime.now(UTC), grace=timedelta(0))
    with suppress(TimeoutError):
        async with asyncio.timeout(END_PATIENCE):
            await supervision.request_stop(stop)
            await supervision.over
    supervision.close()


async def _lock(directory: JobDir) -> int:
    """The lock of a directory whose supervisor is gone or just going. Raises `TimeoutError` if it lives on."""
    async with asyncio.timeout(LOCK_PATIENCE):
        while (lock := directory.lock()) is None:  # noqa: ASYNC110 - flock tells nobody who does not block a thread for it
            await asyncio.sleep(LOCK_INTERVAL)
    return lock
