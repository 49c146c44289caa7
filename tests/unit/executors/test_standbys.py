"""How supervisors that stand by are had and let go, whatever the machine says to it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from jobworker.core.errors import CommandNotStartedError
from jobworker.executors import standbys as module
from jobworker.executors.standbys import COUNT, Standbys
from jobworker.executors.supervision import Supervision

PATIENCE = 10.0  # seconds for what takes none, unless it hangs


class Machine:
    """Where they are made and deleted. Their supervisors have gone already, so none of them is waited for."""

    def __init__(self) -> None:
        self.made = 0
        self.all_made = asyncio.Event()

    async def make(self, _job_id: str) -> Supervision:
        """One more."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.close()
        self.made += 1
        if self.made == COUNT:
            self.all_made.set()
        return Supervision(ours)


async def test_filling_outlives_whatever_a_try_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if what it has left cannot be deleted; there are all as soon as there is room."""
    monkeypatch.setattr(module, "_RETRY", 0)
    machine = Machine()
    errors = iter(
        [
            OSError(24, "too many open files"),
            TimeoutError(),
            CommandNotStartedError(errno=11, stage="fork", subject=""),
            ValueError("one that nobody has thought of"),
        ]
    )

    async def make(job_id: str) -> Supervision:
        if (error := next(errors, None)) is not None:
            raise error
        return await machine.make(job_id)

    async def delete(_job_id: str) -> None:
        raise OSError(24, "too many open files")

    standbys = Standbys(make, delete)
    standbys.begin()
    async with asyncio.timeout(PATIENCE):
        await machine.all_made.wait()
        await standbys.close()


async def test_all_are_ended_at_once() -> None:
    """One that does not answer holds up none of the others."""
    machine = Machine()
    everybody = asyncio.Barrier(COUNT)

    async def delete(_job_id: str) -> None:
        await everybody.wait()

    standbys = Standbys(machine.make, delete)
    standbys.begin()
    async with asyncio.timeout(PATIENCE):
        await machine.all_made.wait()
        await standbys.close()
