"""How fast a job's output is kept, and how fast it comes to those who follow it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import follower, machine
from benchmarks.figures import Measured
from benchmarks.server import ROOT, Server
from benchmarks.starts import client_of

_MANY = 10


def measure(server: Server, *, output_bytes: int) -> Iterator[Measured]:
    """One round: a job that writes so many bytes, then one follower of them, then many at a time."""
    job_id, seconds = asyncio.run(_produce(server, output_bytes))
    yield Measured(name="a job's output kept", value=output_bytes / seconds / 1e6, unit="MB/s", beside=machine.SPLICE)
    for count in (1, _MANY):
        name = "one follower" if count == 1 else f"{count} followers in sum"
        cpu = server.cpu_seconds()
        seconds = _follow(server, job_id, count, output_bytes)
        cpu = server.cpu_seconds() - cpu
        rate = count * output_bytes / seconds / 1e6
        yield Measured(name=name, value=rate, unit="MB/s", beside=machine.TLS)
        yield Measured(name=f"{name}: the server's CPU for 1 GB", value=cpu / count / output_bytes * 1e9, unit="s")
    asyncio.run(_remove(server, job_id))


async def _produce(server: Server, size: int) -> tuple[str, float]:
    async with client_of(server) as client:
        await client.server_info()  # connects
        began = time.perf_counter()
        job = await client.start(("head", "-c", str(size), "/dev/zero"))
        job = await client.wait(job.id)
        seconds = time.perf_counter() - began
        assert job.output_bytes == size
        return job.id, seconds


def _follow(server: Server, job_id: str, count: int, size: int) -> float:
    """Have processes follow the job, each over a connection of its own that is there before; seconds until all have."""
    command = [sys.executable, "-m", follower.__name__, job_id]
    with ExitStack() as stack:
        followers: list[subprocess.Popen[str]] = []
        for _ in range(count):
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=server.client_environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # does nothing to one that has ended and been waited for
            followers.append(process)
        for process in followers:
            assert _line(process) == follower.READY
        began = time.perf_counter()
        for process in followers:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        received = [json.loads(_line(process)) for process in followers]
        seconds = time.perf_counter() - began
        assert received == [size] * count
        for process in followers:
            process.wait()
    return seconds


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


async def _remove(server: Server, job_id: str) -> None:
    """So that no disk has to write the output while something else is measured."""
    async with client_of(server) as client:
        await client.remove(job_id)
