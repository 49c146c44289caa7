"""Waiting for what nobody tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar, cast, overload

from jobworker.core.job import Job
from tests.support.workers import LIMIT

T = TypeVar("T")

INTERVAL = 0.002  # seconds between two looks


@overload
async def until(look: Callable[[], Awaitable[T | None]]) -> T: ...
@overload
async def until(look: Callable[[], T | None]) -> T: ...
async def until(look: Callable[[], Awaitable[T | None] | T | None]) -> T:
    """Look until there is something to see, as that another process has closed a file; returns what was seen."""
    async with asyncio.timeout(LIMIT):
        while True:
            seen = look()
            seen = await seen if isawaitable(seen) else cast("T | None", seen)
            if seen:
                return seen
            await asyncio.sleep(INTERVAL)


async def until_job(get: Callable[[str], Awaitable[Job]], job_id: str, condition: Callable[[Job], object]) -> Job:
    """The job, as soon as it is as the condition says, asked as a user would: `get` is that of a worker or a client."""

    async def look() -> Job | None:
        job = await get(job_id)
        return job if condition(job) else None

    return await until(look)
