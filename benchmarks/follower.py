"""One who follows a job: `python -m benchmarks.follower JOB`, told by the variables of the command line where.

Says when it has connected, begins when it gets a line, and says how many bytes there were.
"""

from __future__ import annotations

import asyncio
import os
import sys

from jobworker.client import AsyncClient

READY = "ready"


def client_from_environ() -> AsyncClient:
    """A client of the server that `Server.client_environ` tells of."""
    server, ca, cert, key = (os.environ[f"JOBWORKER_{name}"] for name in ("SERVER", "CA", "CERT", "KEY"))
    return AsyncClient(server, ca=ca, cert=cert, key=key)


async def follow(job_id: str) -> None:
    """Do it."""
    async with client_from_environ() as client:
        await client.get(job_id)
        print(READY, flush=True)
        sys.stdin.readline()
        received = 0
        async for chunk in client.stream(job_id):
            received += len(chunk.data)
        print(received, flush=True)


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1]))
