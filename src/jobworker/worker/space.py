"""What all jobs take of the disk, held against a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from jobworker.core.errors import OUTPUT_ON_DISK, QuotaExceededError, ServerUnavailableError
from jobworker.executors.base import Executor

LOOK_PART = 20  # the part of the time that may be spent on looks, each of which visits the files of all jobs


class Space:
    """Keeps jobs from being started when there is too much. `make_room` removes what may be removed."""

    def __init__(self, executor: Executor, bound: int | None, make_room: Callable[[], Awaitable[None]]) -> None:
        self._executor = executor
        self._bound = bound
        self._make_room = make_room
        self._turn = asyncio.Lock()
        self._used = 0
        self._look_at = 0.0  # time.monotonic()

    async def check(self) -> None:
        """Make sure that there is room for another job.

        Raises `QuotaExceededError`, and `ServerUnavailableError` if nobody can tell now.
        """
        if self._bound is None:
            return
        async with self._turn:  # who waits has the result of the look before
            if time.monotonic() >= self._look_at:
                await self._look()
            if self._used >= self._bound:
                await self._make_room()
                await self._look()
            if self._used >= self._bound:
                raise QuotaExceededError(OUTPUT_ON_DISK, self._bound)

    async def _look(self) -> None:
        began = time.monotonic()
        try:
            self._used = await self._executor.disk_bytes()
        except OSError as error:  # out of descriptors, most likely
            raise ServerUnavailableError("what jobs take of the disk cannot be told now") from error
        ended = time.monotonic()
        self._look_at = ended + (ended - began) * LOOK_PART
