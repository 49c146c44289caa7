"""Many who follow one job over one connection: `python -m benchmarks.crowd JOB COUNT`, told where as `follower` is.

Every line of the job's output after the first is the time of its writing, in nanoseconds. Says when all follow, and at
the end by how many seconds each line came late to each, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks import gate
from benchmarks.follower import READY, client_from_environ
from jobworker.client import AsyncClient


async def follow(job_id: str, count: int) -> list[list[float]]:
    """The lateness of each line, by follower."""
    attached = asyncio.Semaphore(0)
    async with client_from_environ() as client, asyncio.TaskGroup() as group:
        followers = [group.create_task(_follow(client, job_id, attached)) for _ in range(count)]
        for _ in followers:
            await attached.acquire()
        print(READY, flush=True)
        return [await follower for follower in followers]


async def _follow(client: AsyncClient, job_id: str, attached: asyncio.Semaphore) -> list[float]:
    lateness: list[float] = []
    rest = b""
    async for chunk in client.stream(job_id):
        now = time.time_ns()
        *lines, rest = (rest + chunk.data).split(b"\n")
        for line in lines:
            if line == gate.READY:
                attached.release()
            else:
                lateness.append((now - int(line)) / 1e9)
    return lateness


if __name__ == "__main__":
    print(json.dumps(asyncio.run(follow(sys.argv[1], int(sys.argv[2])))))
