"""The Library: start, watch and stop jobs in this process. Knows no wire.

async with local_worker(Path("/var/lib/jobs")) as worker:
    job = await worker.start(JobSpec(argv=("make", "test")), owner="alice")
    async for chunk in worker.stream(job.id):
        sys.stdout.buffer.write(chunk.data)
    print((await worker.wait(job.id)).end)
"""

from jobworker.worker.local import local_worker
from jobworker.worker.quotas import Quotas
from jobworker.worker.retention import Retention
from jobworker.worker.worker import Chunk, RecoveryReport, Worker, WorkerInfo

__all__ = ["Chunk", "Quotas", "RecoveryReport", "Retention", "Worker", "WorkerInfo", "local_worker"]
