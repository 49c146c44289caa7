"""How soon output that a job is just writing comes to those who follow it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks import crowd, follower, gate, machine
from benchmarks.figures import Measured, latency, percentile
from benchmarks.server import ROOT, Server
from benchmarks.starts import client_of

LIVE = "live output, one follower"
LINE = "a line, from its writing to its follower"

_LINES, _INTERVAL = 100, 0.02
_PROCESSES = 4  # that a crowd is spread over, with a connection each
_CROWD_LINES, _CROWD_INTERVAL = 10, 1.0


def measure(server: Server, *, output_bytes: int) -> Iterator[Measured]:
    """One round: a job that writes as fast as its output is taken, and one that writes a line now and then."""
    seconds = asyncio.run(_live(server, output_bytes))
    yield Measured(name=LIVE, value=output_bytes / seconds / 1e6, unit="MB/s", beside=machine.TLS)
    (late,) = _lateness(server, processes=1, each=1, lines=_LINES, interval=_INTERVAL)
    yield from latency(LINE, late)


def measure_crowd(server: Server, count: int) -> Iterator[Measured]:
    """Many followers of one job that writes a line a second."""
    followers = _lateness(
        server,
        processes=_PROCESSES,
        each=count // _PROCESSES,
        lines=_CROWD_LINES,
        interval=_CROWD_INTERVAL,
    )
    late = [seconds for one in followers for seconds in one]
    name = f"a line to each of {count} followers"
    yield Measured(name=f"{name}, p50", value=percentile(late, 50) * 1000, unit="ms")
    yield Measured(name=f"{name}, p99", value=percentile(late, 99) * 1000, unit="ms")
    yield Measured(name=f"{name}: lines lost", value=_CROWD_LINES * len(followers) - len(late), unit="")


async def _live(server: Server, size: int) -> float:
    """Seconds from the moment at which the job may write, with a follower that waits for it, to the last byte."""
    with gate.closed_gate() as closed:
        async with client_of(server) as client:
            job = await client.start(closed.command(f"exec head -c {size} /dev/zero"))
            stream = client.stream(job.id)
            assert (await anext(stream)).data.rstrip() == gate.READY
            began = time.perf_counter()
            closed.open()
            received = 0
            async for chunk in stream:
                received += len(chunk.data)
            seconds = time.perf_counter() - began
            assert received == size
            await client.remove(job.id)
    return seconds


def _lateness(server: Server, *, processes: int, each: int, lines: int, interval: float) -> Sequence[Sequence[float]]:
    """Seconds by which each line came late, by follower. The job begins when all follow it."""
    # `date` takes the time when it has started, and then writes it.
    script = f"i=0; while [ $i -lt {lines} ]; do date +%s%N; sleep {interval}; i=$((i+1)); done"
    with gate.closed_gate() as closed, ExitStack() as stack:
        job_id = asyncio.run(_start(server, closed.command(script)))
        crowds: list[subprocess.Popen[str]] = []
        for _ in range(processes):
            process = subprocess.Popen(
                [sys.executable, "-m", crowd.__name__, job_id, str(each)],
                cwd=ROOT,
                env=server.client_environ,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # does nothing to one that has ended and been waited for
            crowds.append(process)
        for process in crowds:
            assert process.stdout is not None
            assert process.stdout.readline().rstrip() == follower.READY
        closed.open()
        said = [json.loads(process.communicate()[0]) for process in crowds]
    return [late for followers in said for late in followers]


async def _start(server: Server, command: Sequence[str]) -> str:
    async with client_of(server) as client:
        return (await client.start(command)).id
