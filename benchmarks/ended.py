"""What ended jobs leave open: nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.figures import Measured
from benchmarks.server import Server
from benchmarks.starts import CALLERS, client_of
from jobworker.linux import process

_WARM_UP = 25  # jobs of each caller, after which there is all that is made once
_KEPT = {"jw-free", "jw-standby"}  # supervisors without a job, with a connection each
_PATIENCE = 2.0  # seconds for the connections of the last supervisors to close; they take milliseconds


def measure(server: Server, count: int) -> Iterator[Measured]:
    """How many descriptors the server has open after so many jobs more than before."""
    more = asyncio.run(_more(server, count))
    yield Measured(name=f"open descriptors more after {count} ended jobs", value=more, unit="")


async def _more(server: Server, count: int) -> int:
    async with client_of(server) as client:

        async def run(jobs: int) -> None:
            for _ in range(jobs):
                await client.wait((await client.start(("/bin/true",))).id)

        async def run_by_all(jobs: int) -> None:
            async with asyncio.TaskGroup() as callers:
                for number in range(CALLERS):
                    callers.create_task(run(jobs // CALLERS + (number < jobs % CALLERS)))

        await run_by_all(_WARM_UP * CALLERS)
        before = await _descriptors(server, 0)
        await run_by_all(count)
        return await _descriptors(server, before) - before


async def _descriptors(server: Server, expected: int) -> int:
    """How many are open, once those of supervisors that have just gone are closed, which may take some time."""
    deadline = time.monotonic() + _PATIENCE
    count = _open(server)
    while count > expected and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        count = _open(server)
    return count


def _open(server: Server) -> int:
    """All but the connections of supervisors that are kept for jobs to come, which are now more and now fewer."""
    kept = sum(_name(pid) in _KEPT for pid in process.descendants(server.pid))
    return sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir()) - kept


def _name(pid: int) -> str:
    with suppress(OSError):  # it has just gone
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return ""
