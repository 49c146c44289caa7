"""Pages of jobs that fit into a message."""

from __future__ import annotations

from collections.abc import Sequence

from jobworker.api import convert
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.core.query import JobFilter
from jobworker.worker import Worker

BATCH = 100  # jobs that are in memory at a time, each of up to a megabyte and some


async def page_within(
    worker: Worker, where: JobFilter, *, size: int, token: str | None, max_bytes: int
) -> pb.ListJobsResponse:
    """A page of at most `size` jobs and about `max_bytes`, but of at least one job if there is any."""
    response = pb.ListJobsResponse()
    room = max_bytes
    batch = BATCH
    while len(response.jobs) < size:
        page = await worker.list(where, page_size=min(batch, size - len(response.jobs)), page_token=token)
        jobs = [convert.job_message(job) for job in page.jobs]
        fitting = _how_many_fit(jobs, room)
        if fitting < len(jobs):
            if not fitting and response.jobs:
                break
            if len(jobs) > 1:
                batch = max(fitting, 1)  # asked for again: the token behind them is the store's to give
                continue
        response.jobs.extend(jobs)
        room -= sum(job.ByteSize() for job in jobs)
        token = page.next_page_token
        if token is None:
            break
    response.next_page_token = token or ""
    return response


def _how_many_fit(jobs: Sequence[pb.Job], room: int) -> int:
    for count, job in enumerate(jobs):
        room -= job.ByteSize()
        if room < 0:
            return count
    return len(jobs)
