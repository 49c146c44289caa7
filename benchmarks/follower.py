"""One who follows a job: `python -m benchmarks.follower JOB`, told by the variables of the command line where.

Says when it has connected, begins when it gets a line, and says how many bytes there were.
"""

from __future__ import annotations

import asyncio
import os
import sys

from jobworker.client import AsyncClient

READY = "ready"


async def follow(job_id: str) -> None:
    """Do it."""
    where = {name: os.environ[f"JOBWORKER_{name.upper()}"] for name in ("server", "ca", "cert", "key")}
    async with AsyncClient(where["server"], ca=where["ca"], cert=where["cert"], key=where["key"]) as client:
        await client.get(job_id)
        print(READY, flush=True)
        sys.stdin.readline()
        received = 0
        async for chunk in client.stream(job_id):
            received += len(chunk.data)
        print(received, flush=True)


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1]))
