"""A worker on a small disk that a job fills: run in a mount namespace of its own, on the folder given."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from jobworker.core.spec import JobSpec
from jobworker.worker import Chunk, local_worker
from tests.support.workers import Gate

SIZE = 4_000_000  # twice the disk


async def main(disk: Path) -> None:
    """Fill the disk, see the job end all the same, make room, go on."""
    ballast = disk / "ballast"
    async with local_worker(disk / "state") as worker:
        ballast.write_bytes(b"x" * 500_000)
        gate = Gate(disk / "gate")  # until the start has been remembered, which needs room
        script = f"read x < {gate.path}; head -c {SIZE} /dev/zero; exit 5"
        job = await worker.start(JobSpec(argv=("sh", "-c", script)), "ada")
        gate.open()
        stream = worker.stream(job.id)
        size = len((await anext(stream)).data)
        gate.close()  # not before the job has read from it: what is in a FIFO goes with the last one who has it open
        follower = asyncio.ensure_future(_rest(stream))
        log = disk / "state" / "jobs" / job.id / "output"
        async with asyncio.timeout(30):
            ended = (await worker.wait(job.id)).end  # recorded in the room that was kept for it
            size += await follower
        assert (await worker.get(job.id)).output_bytes == log.stat().st_size
        ballast.unlink()
        assert ended is not None
        assert ended.exit_code == 5, ended
        assert ended.output_bytes + ended.output_dropped_bytes == SIZE, ended
        assert ended.output_dropped_bytes > 1_000_000, ended
        assert size == ended.output_bytes == log.stat().st_size
        assert not log.read_bytes().strip(b"\0"), "what is kept is what was written, without a gap"
        after = await worker.start(JobSpec(argv=("true",)), "ada")
        assert (await worker.wait(after.id)).end is not None
    async with local_worker(disk / "state") as worker:
        assert (await worker.get(job.id)).end == ended
    sys.stdout.write("all is well\n")


async def _rest(stream: AsyncIterator[Chunk]) -> int:
    return sum([len(chunk.data) async for chunk in stream])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
