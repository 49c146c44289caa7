"""The supervisors of the jobs of this machine: one is had for a job, kept for the next, or found again."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from jobworker.core.job import StopRequest
from jobworker.executors.spawner import Spawner
from jobworker.executors.supervision import Supervision
from jobworker.runtime import protocol
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.protocol import Message

# The kernel closes the descriptors of a process that has ended one by one, the control socket before the lock or after.
LOCK_PATIENCE = 5.0
LOCK_INTERVAL = 0.005
# A kill takes milliseconds, unless the supervisor has been stopped or the program hangs on a file system.
END_PATIENCE = 5.0

FREE_PATIENCE = 0.1  # seconds; it removes a cgroup, and may have been stopped

MAX_FREE = 16  # that are kept for jobs to come; each is a process of a megabyte

SUPERVISE: Message = {"op": "supervise"}
BURY: Message = {"op": "bury"}
FREE = protocol.encode(protocol.FREE)


class Supervisors:
    """Those that a spawner forks, those that are free again, and those that are there."""

    def __init__(self, spawner: Spawner) -> None:
        self._loop = asyncio.get_running_loop()
        self._spawner = spawner
        self._leaving: set[socket.socket] = set()  # that have recorded an end, and have not said yet that they are free
        self._free: list[socket.socket] = []
        self._heard = asyncio.Event()  # of one that was leaving

    async def one_free_soon(self) -> None:
        """Wait a little for one of those that have recorded an end, if none is free: that takes less than a new one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FREE_PATIENCE):
                while self._leaving and not self._free:
                    self._heard.clear()
                    await self._heard.wait()

    async def stand_by(self, job_id: str, cgroup: str | None) -> Supervision:
        """Have a supervisor stand by for a job, which will have this cgroup."""
        request = protocol.encode({"op": "stand_by", "id": job_id, "cgroup": cgroup})
        while self._free:
            connection = self._free.pop()
            self._loop.remove_reader(connection)
            try:
                connection.send(request)
            except OSError:  # it has just died
                connection.close()
            else:
                return Supervision(connection, self._take_back)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            try:
                ours.send(request)
                await self._spawner.request(SUPERVISE, [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return Supervision(ours, self._take_back)

    async def bury(self, directory: JobDir) -> Supervision:
        """Have the processes of a job ended whose supervisor has died, and the end recorded.

        The lock and the socket are made here and handed over, so that there is no moment at which somebody who looks
        could find nobody to ask.
        """
        lock = await _lock(directory)
        try:
            with directory.listen() as listener:
                supervision = Supervision(directory.connect())
                await self._spawner.request(BURY, [directory.fd, lock, listener.fileno()])
        finally:
            os.close(lock)
        return supervision

    async def find(self, directory: JobDir) -> Supervision | None:
        """A connection to the supervisor of a job; `None` if it is dead."""
        lock = directory.lock()
        if lock is None:
            with suppress(ConnectionRefusedError):
                return Supervision(directory.connect())
            lock = await _lock(directory)  # it was just going
        os.close(lock)
        return None

    def close(self) -> None:
        """Let those end that have no job."""
        for connection in [*self._leaving, *self._free]:
            self._let_end(connection)

    def _take_back(self, connection: socket.socket) -> None:
        self._leaving.add(connection)
        self._loop.add_reader(connection, self._hear, connection)

    def _hear(self, connection: socket.socket) -> None:
        """Note that one is free now, or let it end: it has died, or there are enough."""
        try:
            packet = connection.recv(protocol.MAX_MESSAGE_BYTES)
        except OSError:
            packet = b""
        if packet == FREE and connection in self._leaving and len(self._free) < MAX_FREE:
            self._leaving.remove(connection)
            self._free.append(connection)
        else:
            self._let_end(connection)
        self._heard.set()

    def _let_end(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection)
        connection.close()
        self._leaving.discard(connection)
        if connection in self._free:
            self._free.remove(connection)


async def start_time(supervision: Supervision, deadline: float) -> datetime:
    """When the program was executed; until `deadline`, a time of the loop, it may take.

    Raises what `Supervision.started` does, and `TimeoutError`.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(supervision.started)
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, "no supervisor has answered") from None


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
