"""A worker on a file system that makes no holes: run in a mount namespace of its own, on the folder given."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from jobworker.core.job import Job
from jobworker.core.output import GapReason, OutputLimit, OverflowPolicy
from jobworker.core.spec import JobSpec
from jobworker.executors.base import OutputForm
from jobworker.executors.output import can_make_holes
from jobworker.worker import Chunk, Gap, OutputPolicy, Selection, Worker, local_worker

SIZE = 65_536
LINES = 200_000


async def main(disk: Path) -> None:
    """Keep the last output of a job, follow it, and have it all again: by a worker of later, and compressed."""
    assert not can_make_holes(disk)
    output = OutputPolicy(default=OutputLimit(size=SIZE, policy=OverflowPolicy.KEEP_LAST))
    async with local_worker(disk / "state", output=output) as worker:
        script = f"seq -f %015.0f 0 {LINES - 1}"
        job = await worker.start(JobSpec(argv=("sh", "-c", script)), "ada")
        assert job.output_limit.policy is OverflowPolicy.KEEP_LAST
        await check(worker, job, Selection())
        ended = await worker.wait(job.id)
        assert (ended.output_bytes, ended.end is not None and ended.end.output_dropped_bytes) == (LINES * 16, 0)
        assert SIZE <= ended.output_bytes - ended.output_first_offset <= SIZE * 5 // 4
        segments = sum(1 for _ in (disk / "state" / "jobs" / job.id / "output").iterdir())
        assert 1 < segments <= 12, segments
        await check(worker, job, Selection(times=True))
    async with local_worker(disk / "state", output=output) as worker:
        assert await worker.get(job.id) == ended
        for selection in (Selection(), Selection(times=True), Selection(offset=ended.output_first_offset + 3)):
            await check(worker, job, selection)
        executor = worker._executor  # pyright: ignore[reportPrivateUsage] - as it will do some time
        await executor.compress_output(job.id)
        assert [kept.form for kept in await executor.kept_outputs([job.id])] == [OutputForm.COMPRESSED]
        await check(worker, job, Selection())
        await worker.remove(job.id)
        assert not list((disk / "state" / "jobs").iterdir())
    sys.stdout.write("all is well\n")


async def check(worker: Worker, job: Job, selection: Selection) -> None:
    """Each byte is what it was written as or has made room, and nothing is left out."""
    offset = selection.offset
    kept = 0
    async for piece in worker.stream(job.id, selection):
        assert piece.offset == offset, piece
        offset = piece.end
        if isinstance(piece, Chunk):
            kept += len(piece.data)
            written = b"".join(b"%015d\n" % number for number in range(piece.offset // 16, piece.end // 16 + 1))
            assert piece.data == written[piece.offset % 16 :][: len(piece.data)]
        else:
            assert isinstance(piece, Gap)
            assert piece.reason is GapReason.TRIMMED, piece
    assert offset == LINES * 16, offset
    assert kept >= SIZE - 3, kept


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
