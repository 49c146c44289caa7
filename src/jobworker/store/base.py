"""What the worker needs of a job store."""

from __future__ import annotations

from typing import Protocol

from jobworker.core.job import Job
from jobworker.core.query import JobFilter, JobPage


class JobStore(Protocol):
    """An index over the job directories plus what only the daemon knows.

    Every change is durable when its call returns. Every call raises `StoreError` if the store cannot do it. A job is
    `add`ed before its process is started, without a start time, and does not show in `page` until it has one.
    """

    async def add(self, job: Job) -> None:
        """Remember a job. Raises `RequestIdReusedError` if its owner has a job with the same request id."""
        ...

    async def update(self, job: Job) -> None:
        """Replace what is remembered of a job's start, stop and end. An end, once recorded, is never replaced."""
        ...

    async def remove(self, job_id: str) -> None:
        """Forget a job and its request id; one that is not there is no error."""
        ...

    async def get(self, job_id: str) -> Job | None:
        """One job."""
        ...

    async def find_request(self, owner: str, request_id: str) -> Job | None:
        """The job that was started with this request id."""
        ...

    async def page(self, where: JobFilter, *, size: int, token: str | None = None) -> JobPage:
        """A page of jobs, newest first. Raises `InvalidArgumentError` for a token that is not one of its own."""
        ...

    async def open_ids(self) -> list[str]:
        """Ids of all jobs that have no end recorded, those without a start time included."""
        ...

    async def ended_ids(self) -> set[str]:
        """Ids of all jobs that have an end recorded."""
        ...

    async def close(self) -> None:
        """Let go of the store's resources."""
        ...
