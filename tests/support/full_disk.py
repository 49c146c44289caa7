"""A worker on a small disk that a job fills: run in a mount namespace of its own, on the folder given."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from jobworker.core.job import Job
from jobworker.core.output import GapReason
from jobworker.core.spec import JobSpec
from jobworker.worker import Chunk, Gap, OutputPolicy, Selection, Worker, local_worker
from tests.support.polling import until
from tests.support.workers import Gate

SIZE = 4_000_000  # twice the disk
FAR = datetime(2000, 1, 1, tzinfo=UTC)


async def main(disk: Path, reserve: int) -> None:
    """Fill the disk, have the job and the worker go on, make room, see output kept again."""
    ballast = disk / "ballast"
    output = OutputPolicy(reserve=reserve)
    async with local_worker(disk / "state", output=output) as worker:
        ballast.write_bytes(b"x" * 500_000)
        gate = Gate(disk / "gate")  # until the start has been remembered, which needs room
        (disk / "go").touch()
        fill = f"read x < {gate.path}; head -c {SIZE} /dev/zero; read x < {gate.path}"
        script = f"{fill}; while [ -e {disk}/go ]; do echo on; sleep 0.01; done"
        job = await worker.start(JobSpec(argv=("sh", "-c", f"{script}; exit 5")), "ada")
        log = disk / "state" / "jobs" / job.id / "output"
        gate.open()
        follower = asyncio.ensure_future(read(worker, job))
        async with asyncio.timeout(60):
            await until(lambda: gate.is_passed)
            gate.open()
            await until(lambda: gate.is_passed)  # then all of it has been written, kept or not
            if reserve:  # which is for this
                other = await worker.start(JobSpec(argv=("echo", "x")), "ada")
                assert (await worker.wait(other.id)).end is not None
                assert await read(worker, other) == [Gap(offset=0, length=2, reason=GapReason.DISK_FULL)]
            ballast.unlink()
            gate.close()
            await until(lambda: log.read_bytes().endswith(b"on\non\n"))  # what comes is kept again
            (disk / "go").unlink()
            ended = await worker.wait(job.id)
            pieces = await follower
        check(ended, pieces)
        assert await read(worker, job) == await read(worker, job, Selection(since=FAR)) == joined(pieces)
    async with local_worker(disk / "state", output=output) as worker:
        assert (await worker.get(job.id)) == ended
        assert await read(worker, job) == joined(pieces)
    sys.stdout.write("all is well\n")


def check(job: Job, pieces: list[Chunk | Gap]) -> None:
    """Every byte is either there, at its offset, or in a gap, and counted."""
    assert job.end is not None
    assert job.end.exit_code == 5, job
    offset = 0
    for piece in pieces:
        assert piece.offset == offset, pieces
        offset = piece.end
        if isinstance(piece, Chunk):
            assert piece.data == (bytes(SIZE) + b"on\n" * offset)[piece.offset : offset]
    gaps = [piece for piece in pieces if isinstance(piece, Gap)]
    assert offset == job.output_bytes == job.end.output_bytes
    assert job.end.output_dropped_bytes == sum(gap.length for gap in gaps) > 1_000_000
    assert {gap.reason for gap in gaps} == {GapReason.DISK_FULL}
    assert isinstance(pieces[-1], Chunk)


async def read(worker: Worker, job: Job, selection: Selection | int = 0) -> list[Chunk | Gap]:
    """All of it."""
    return joined([piece async for piece in worker.stream(job.id, selection)])


def joined(pieces: list[Chunk | Gap]) -> list[Chunk | Gap]:
    """Chunks that follow each other as one, however they came."""
    found: list[Chunk | Gap] = []
    for piece in pieces:
        if isinstance(piece, Chunk) and found and isinstance(found[-1], Chunk):
            found[-1] = Chunk(offset=found[-1].offset, data=found[-1].data + piece.data)
        else:
            found.append(piece)
    return found


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
