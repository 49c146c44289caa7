"""A worker of a user without root, which is to limit a job: run inside of the user's own scope, on the folder given."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from jobworker.core.limits import Limits
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause
from jobworker.worker import local_worker

MIB = 1024 * 1024


async def main(state: Path) -> None:
    """The scope has no I/O controller; the rest is in force."""
    async with local_worker(state) as worker:
        assert {"cpus", "memory", "pids"} <= set(worker.info.enforceable_limits), worker.info
        job = await worker.start(JobSpec(argv=("tail", "/dev/zero"), limits=Limits(memory=32 * MIB, pids=20)), "ada")
        end = (await worker.wait(job.id)).end
        assert end is not None
        assert end.cause is Cause.OOM_KILLED, end
    sys.stdout.write("all is well\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
