"""What a server costs that has much to remember and nothing to do."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks import gate, listing
from benchmarks.figures import Measured
from benchmarks.gate import Gate
from benchmarks.memory import stop_all
from benchmarks.server import Certificates, Server, running_server
from benchmarks.starts import CALLERS, client_of
from jobworker.client import AsyncClient
from jobworker.store.sqlite_file import open_database

COPIES = 10  # the long list has so many times as many jobs as the server has ended ones

_WATCHED = 10.0  # seconds of doing nothing
_CALM = 0.05  # seconds of CPU in one second at most, before the watch begins
_PATIENCE = 120  # seconds until then; the server looks through all ended jobs once, for those that are too old
_LISTS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """How much there is."""

    ended: int = 100_000
    running: int = 500
    followers: int = 100

    @property
    def memory(self) -> str:
        """The name of a figure."""
        return f"memory of the server with {self.ended} ended jobs and {self.running} running"

    @property
    def cpu(self) -> str:
        """The name of a figure."""
        return f"CPU of the server with {self.running} idle jobs and {self.followers} idle followers"

    def first_page(self, jobs: int) -> str:
        """The name of a figure."""
        return f"ListJobs, first page of {jobs} ended jobs"


def measure(folder: Path, certificates: Certificates, rest: Rest, database: Path) -> Iterable[Measured]:
    """One round, of a server that remembers the jobs of a database that `benchmarks.listing.fill` has made."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        copied = _remember(Path(fresh, "state"), database)
        with (
            running_server(Path(fresh), certificates, "--retention-age", "36500d") as server,
            gate.closed_gate() as closed,
        ):
            yield from asyncio.run(_measure(server, rest, closed, copied))


def _remember(state: Path, database: Path) -> Path:
    """A copy of the database, with the empty directories of its jobs, without which the server would forget them."""
    state.mkdir(mode=0o700)
    jobs, copied = state / "jobs", state / "jobs.db"
    jobs.mkdir(mode=0o700)
    shutil.copy(database, copied)
    with closing(open_database(copied, "process")) as connection:
        for (job_id,) in connection.execute("SELECT id FROM jobs"):
            (jobs / job_id).mkdir()
    return copied


async def _measure(server: Server, rest: Rest, closed: Gate, database: Path) -> list[Measured]:
    async with client_of(server) as client:
        ids = await _start(client, closed.command(""), rest.running)
        memory = server.resident_bytes()
        async with _following(client, ids[: rest.followers]):
            await _calm(server)
            before = server.cpu_seconds()
            await asyncio.sleep(_WATCHED)
            cpu = server.cpu_seconds() - before
        await stop_all(client, ids)
        short = await _list(client)
        await asyncio.to_thread(listing.multiply, database, COPIES)
        long = await _list(client)
    return [
        Measured(name=rest.memory, value=memory / 2**20, unit="MiB"),
        Measured(name=rest.cpu, value=cpu / _WATCHED * 100, unit="% of a core"),
        Measured(name=rest.first_page(rest.ended), value=short, unit="ms"),
        Measured(name=rest.first_page(rest.ended * COPIES), value=long, unit="ms"),
    ]


async def _start(client: AsyncClient, command: tuple[str, ...], count: int) -> list[str]:
    slots = asyncio.Semaphore(CALLERS)

    async def start() -> str:
        async with slots:
            return (await client.start(command)).id

    return await asyncio.gather(*(start() for _ in range(count)))


@asynccontextmanager
async def _following(client: AsyncClient, ids: list[str]) -> AsyncGenerator[None]:
    """Followers that have got what there is, and wait."""
    streams = [client.stream(job_id) for job_id in ids]
    for stream in streams:
        assert (await anext(stream)).data.rstrip() == gate.READY
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    try:
        yield
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _calm(server: Server) -> None:
    """Wait until the server has done what it does once after its start."""
    for _ in range(_PATIENCE):
        before = server.cpu_seconds()
        await asyncio.sleep(1)
        if server.cpu_seconds() - before <= _CALM:
            return


async def _list(client: AsyncClient) -> float:
    """The median of some first pages, in milliseconds; the clock stops at the first job of one."""
    times: list[float] = []
    for _ in range(_LISTS):
        began = time.perf_counter()
        async for _job in client.list():
            times.append((time.perf_counter() - began) * 1000)
            break
    return statistics.median(times)
