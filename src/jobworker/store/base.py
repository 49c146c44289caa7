"""What the worker needs of a job store."""

from __future__ import annotations

from typing import Literal, Protocol

from jobworker.core.job import Job
from jobworker.core.query import JobFilter, JobPage

# What a change outlives once its call has returned: the end of every process, or a power cut too
Durability = Literal["process", "power"]


class JobStore(Protocol):
    """An index over the job directories plus what only the daemon knows.

    Every change is durable when its call returns. Every call raises `StoreError` if the store cannot do it; it has then
    done nothing, and later calls work again once the reason is gone. A call that is cancelled is done or not, never by
    halves. Calls see what was done by those that were made before them. A job does not show in `page` until it has a
    start time.
    """

    async def put(self, job: Job) -> None:
        """Remember all that is known of a job, whether it is there already or not.

        Of one that is there, the start, stop, end, limits and output size are replaced. `None` replaces nothing, and an
        end, once recorded, is never replaced, nor are the limits and the output size with it. A request id that its
        owner has another job with is left out.
        """
        ...

    async def remove(self, job_id: str) -> None:
        """Forget a job and its request id; one that is not there is no error."""
        ...

    async def get(self, job_id: str, *, owner: str | None = None) -> Job | None:
        """One job, of this owner if one is given; a look in vain costs the same whether somebody else has it or not."""
        ...

    async def find_request(self, owner: str, request_id: str) -> Job | None:
        """The job that was started with this request id."""
        ...

    async def page(self, where: JobFilter, *, size: int, token: str | None = None) -> JobPage:
        """A page of jobs, newest first; jobs of the same creation time by id, the greatest first.

        It has at most `size` jobs, and fewer where they are large: only `next_page_token` says whether more follow.
        Going on by tokens shows every job that is there all the while exactly once. Raises `InvalidArgumentError` for a
        token that is not one of its own, or that came with another filter.
        """
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
