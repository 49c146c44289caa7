"""Calls that stay open for as long as their callers like: counted by user, and watches ended when the server ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from jobworker.core.errors import QuotaExceededError, ServerUnavailableError
from jobworker.server.access import Hold


class HeldCalls:
    """The calls of all users that are held open."""

    def __init__(self, *, per_user: int) -> None:
        self._per_user = per_user
        self._open: Counter[tuple[str, Hold]] = Counter()
        self._watches: set[asyncio.Timeout] = set()
        self._ending = False

    @asynccontextmanager
    async def hold(self, user: str, kind: Hold) -> AsyncGenerator[None]:
        """Count a call while the block runs.

        Raises `QuotaExceededError`, and `ServerUnavailableError` for a watch when the server ends.
        """
        if self._open[user, kind] >= self._per_user:
            raise QuotaExceededError(f"{kind} per user", self._per_user)
        self._open[user, kind] += 1
        try:
            if kind is Hold.WATCH:
                async with self._until_the_end():
                    yield
            else:
                yield
        finally:
            self._open[user, kind] -= 1
            if not self._open[user, kind]:
                del self._open[user, kind]

    def end_watches(self) -> None:
        """End all watches and refuse new ones: their callers are told to come back."""
        self._ending = True
        for limit in self._watches:
            limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def _until_the_end(self) -> AsyncGenerator[None]:
        if self._ending:
            raise _ending()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._watches.add(limit)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise _ending() from None
        finally:
            self._watches.discard(limit)


def _ending() -> ServerUnavailableError:
    return ServerUnavailableError("the server is shutting down; running jobs go on, try again when it is back")
