"""The Library: start, watch and stop jobs in this process. Knows no wire.

async with local_worker(Path("/var/lib/jobs")) as worker:
    job = await worker.start(JobSpec(argv=("make", "test")), owner="alice")
    async for piece in worker.stream(job.id):
        if isinstance(piece, Chunk):  # else it tells what is missing
            sys.stdout.buffer.write(piece.data)
    print((await worker.wait(job.id)).end)
"""

from jobworker.core.output import Chunk, Gap, OutputPolicy, Selection
from jobworker.worker.local import local_worker
from jobworker.worker.quotas import Quotas
from jobworker.worker.retention import Retention
from jobworker.worker.worker import RecoveryReport, Worker, WorkerInfo

__all__ = [
    "Chunk",
    "Gap",
    "OutputPolicy",
    "Quotas",
    "RecoveryReport",
    "Retention",
    "Selection",
    "Worker",
    "WorkerInfo",
    "local_worker",
]
