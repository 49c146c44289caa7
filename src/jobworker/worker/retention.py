"""How long ended jobs and their output are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobworker.core.job import JobEnd
from jobworker.core.query import MAX_PAGE_SIZE, JobFilter
from jobworker.core.state import JobState
from jobworker.runtime.gaps import Extent
from jobworker.store.base import JobStore

_ENDED = JobFilter(states=frozenset(state for state in JobState if state.ended))


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """When ended jobs go: at an `age` since their end, and the oldest ones while the output exceeds `total_bytes`.

    The output of running jobs counts. `None` is no bound.
    """

    age: timedelta | None = timedelta(days=30)
    total_bytes: int | None = 50 * 1024**3


async def expired(store: JobStore, retention: Retention, now: datetime, running_bytes: int) -> AsyncIterator[str]:
    """Ids of the ended jobs that are to go, by a walk over all ended jobs, newest first.

    `running_bytes` is what is kept of the output of those that run.
    """
    newer_bytes = running_bytes
    token: str | None = None
    while True:
        page = await store.page(_ENDED, size=MAX_PAGE_SIZE, token=token)
        for job in page.jobs:
            if job.end is None:
                continue  # not with this filter; the type does not say so
            if retention.age is not None and job.end.end_time < now - retention.age:
                yield job.id
                continue
            newer_bytes += _kept(job.end)  # of this one and of all newer ones, whether they have to go or not
            if retention.total_bytes is not None and newer_bytes > retention.total_bytes:
                yield job.id
        token = page.next_page_token
        if token is None:
            return


def _kept(end: JobEnd) -> int:
    return Extent(end.output_first_offset, end.output_bytes, end.output_dropped_bytes).kept
