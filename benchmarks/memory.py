"""What a running job costs in memory, beyond the job's own."""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from benchmarks.figures import Measured
from benchmarks.server import Server
from benchmarks.starts import client_of
from jobworker.client import AsyncClient

JOBS = 100
BOTH = "both, by a running job"
_WARM_UP = 20
_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", re.MULTILINE)


def measure(server: Server) -> Iterator[Measured]:
    """Of a server that has done nothing yet. Memory of the kernel's, for pipes and the like, is not in it."""
    supervisors, growth = asyncio.run(_measure(server))
    yield Measured(name=f"supervisor, one of {JOBS}", value=statistics.median(supervisors), unit="KiB")
    yield Measured(name="growth of the server by a running job", value=growth / JOBS, unit="KiB")
    yield Measured(name=BOTH, value=statistics.median(supervisors) + growth / JOBS, unit="KiB")


async def _measure(server: Server) -> tuple[Sequence[int], int]:
    async with client_of(server) as client:
        for _ in range(_WARM_UP):  # what the first jobs cost is not what each one costs
            await client.run(("/bin/true",))
        before = _private_kib(server.pid)
        ids = [(await client.start(("sleep", "600"))).id for _ in range(JOBS)]
        growth = _private_kib(server.pid) - before
        (spawner,) = _children(server.pid)
        supervisors = [_private_kib(pid) for pid in _children(spawner) if _name(pid).startswith("jw-sup")]
        assert len(supervisors) == JOBS
        await stop_all(client, ids)
    return supervisors, growth


async def stop_all(client: AsyncClient, ids: Sequence[str]) -> None:
    """Kill some jobs, and wait for their end."""
    await asyncio.gather(*(client.stop(job_id, grace=timedelta(0)) for job_id in ids))


def _private_kib(pid: int) -> int:
    """Memory that no other process shares."""
    return sum(map(int, _PRIVATE.findall(Path(f"/proc/{pid}/smaps_rollup").read_text())))


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found
