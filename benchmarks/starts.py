"""How long a start takes over one connection, and what comes of it: the first byte of output, an answer about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from benchmarks import machine
from benchmarks.figures import Measured, latency
from benchmarks.server import Server
from jobworker.client import AsyncClient

CALLERS = 16
_WARM_UP = 5
_STARTS = 60  # by one caller
_STARTS_EACH = 12  # by each of many
_FIRST_BYTES = 40
_CONNECTIONS = 20
_COMMAND = ("/bin/true",)
_SPEAKING_COMMAND = ("/bin/echo", "x")


def client_of(server: Server) -> AsyncClient:
    """A client, which connects at its first call."""
    certificates = server.certificates
    return AsyncClient(server.address, ca=certificates.ca, cert=certificates.user_cert, key=certificates.user_key)


def measure_starts(server: Server, durability: str) -> Iterator[Measured]:
    """One round of starts that survive what `durability` says."""
    one, alone, many, together = asyncio.run(_starts(server))
    yield from latency(f"start ({durability})", one, beside=machine.SPAWN + ", p50")
    yield Measured(name=f"starts by 1 caller ({durability})", value=len(one) / alone, unit="/s")
    yield from latency(f"start, one of {CALLERS} callers ({durability})", many)
    yield Measured(name=f"starts by {CALLERS} callers ({durability})", value=len(many) / together, unit="/s")


def measure_first_bytes(server: Server) -> Iterator[Measured]:
    """One round of starts whose output is waited for."""
    seconds = asyncio.run(_first_bytes(server))
    yield from latency("start to first output byte", seconds, beside=machine.FIRST_BYTE + ", p50")


def measure_connections(server: Server) -> Iterator[Measured]:
    """One round of new connections, each for one status."""
    yield from latency("new connection and a status", asyncio.run(_connections(server)))
    yield from latency("a status", asyncio.run(_statuses(server)))


async def _starts(server: Server) -> tuple[Sequence[float], float, Sequence[float], float]:
    """Seconds of each start and of all, by one caller and by many."""
    async with client_of(server) as client:
        ids: list[str] = []
        await _start_one_by_one(client, _WARM_UP, ids)
        await _wait_for(client, ids)

        began = time.perf_counter()
        one = await _start_one_by_one(client, _STARTS, ids)
        alone = time.perf_counter() - began
        await _wait_for(client, ids)

        began = time.perf_counter()
        each = await asyncio.gather(*(_start_one_by_one(client, _STARTS_EACH, ids) for _ in range(CALLERS)))
        together = time.perf_counter() - began
        await _wait_for(client, ids)
    return one, alone, [seconds for caller in each for seconds in caller], together


async def _start_one_by_one(client: AsyncClient, times: int, ids: list[str]) -> list[float]:
    seconds: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        job = await client.start(_COMMAND)
        seconds.append(time.perf_counter() - began)
        ids.append(job.id)
    return seconds


async def _wait_for(client: AsyncClient, ids: list[str]) -> None:
    """Let the jobs end, so that what is measured next has the machine for itself."""
    for job_id in ids:
        await client.wait(job_id)
    ids.clear()


async def _first_bytes(server: Server) -> Sequence[float]:
    async with client_of(server) as client:
        await client.run(_SPEAKING_COMMAND)
        return [await _first_byte(client) for _ in range(_FIRST_BYTES)]


async def _first_byte(client: AsyncClient) -> float:
    began = time.perf_counter()
    job = await client.start(_SPEAKING_COMMAND)
    stream = client.stream(job.id)
    await anext(stream)
    seconds = time.perf_counter() - began
    await _drain(stream)
    return seconds


async def _drain(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def _connections(server: Server) -> Sequence[float]:
    async with client_of(server) as client:
        job_id = (await client.run(_COMMAND)).job.id
    seconds: list[float] = []
    for _ in range(_CONNECTIONS):
        began = time.perf_counter()
        async with client_of(server) as client:
            await client.get(job_id)
            seconds.append(time.perf_counter() - began)
    return seconds


async def _statuses(server: Server) -> Sequence[float]:
    seconds: list[float] = []
    async with client_of(server) as client:
        job_id = (await client.run(_COMMAND)).job.id
        for _ in range(_STARTS):
            began = time.perf_counter()
            await client.get(job_id)
            seconds.append(time.perf_counter() - began)
    return seconds
