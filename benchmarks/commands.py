"""How long a person waits for the command line."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.figures import Measured
from benchmarks.server import PROGRAM, Server
from benchmarks.starts import client_of

_BARE = "bare interpreter"
_TIMES = 5


def measure(server: Server) -> Iterator[Measured]:
    """One round: wall time from the start of the process to its end."""
    job_id = asyncio.run(_run_a_job(server))
    yield _wall(_BARE, [sys.executable, "-c", "pass"], server)
    yield _wall("`jobworker --help`", [PROGRAM, "--help"], server, beside=_BARE)
    yield _wall("`jobworker status ID`", [PROGRAM, "status", job_id], server, beside=_BARE)


def _wall(name: str, command: Sequence[str | Path], server: Server, *, beside: str | None = None) -> Measured:
    seconds: list[float] = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        subprocess.run(command, env=server.client_environ, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return Measured(name=name, value=statistics.median(seconds) * 1000, unit="ms", beside=beside)


async def _run_a_job(server: Server) -> str:
    async with client_of(server) as client:
        return (await client.run(("/bin/true",))).job.id
