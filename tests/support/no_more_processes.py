"""A worker whose process may start no more threads, as where a machine or a container has no more pids: not as root."""

from __future__ import annotations

import asyncio
import resource
import sys
import threading
from pathlib import Path

from jobworker.core.spec import JobSpec
from jobworker.worker import local_worker

SIZE = 3_000_000  # more than is read without a thread


async def main(state: Path) -> None:
    """It starts jobs, gives their output and removes them all the same."""
    async with local_worker(state) as worker:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        try:
            threading.Thread(target=print).start()
        except RuntimeError:
            pass
        else:
            sys.exit("this process may start threads still")
        spec = JobSpec(argv=("head", "-c", str(SIZE), "/dev/zero"))
        for job in await asyncio.gather(*(worker.start(spec, "ada") for _ in range(10))):
            await worker.usages([job.id])
            assert sum([piece.end - piece.offset async for piece in worker.stream(job.id)]) == SIZE
            await worker.wait(job.id)
            await worker.remove(job.id)
    assert not list((state / "jobs").iterdir())
    sys.stdout.write("all is well\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
