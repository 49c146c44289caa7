"""Calls that stay open for as long as the caller likes: counted by user, ended when the server ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from jobworker.core.errors import QuotaExceededError, ServerUnavailableError


class HeldCalls:
    """The open streams, waits and watches of all users."""

    def __init__(self, *, per_user: int) -> None:
        self._per_user = per_user
        self._by_user: Counter[str] = Counter()
        self._limits: set[asyncio.Timeout] = set()
        self._ending = False

    @asynccontextmanager
    async def hold(self, user: str) -> AsyncGenerator[None]:
        """Count a call while the block runs. Raises `QuotaExceededError`, and `ServerUnavailableError` at the end."""
        if self._ending:
            raise _ending()
        if self._by_user[user] >= self._per_user:
            raise QuotaExceededError("open streams and waits per user", self._per_user)
        self._by_user[user] += 1
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits.add(limit)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise _ending() from None
        finally:
            self._limits.discard(limit)
            self._by_user[user] -= 1
            if not self._by_user[user]:
                del self._by_user[user]

    def end(self) -> None:
        """End all calls and refuse new ones: their callers are told to come back."""
        self._ending = True
        for limit in self._limits:
            limit.reschedule(asyncio.get_running_loop().time())


def _ending() -> ServerUnavailableError:
    return ServerUnavailableError("the server is shutting down; running jobs go on, try again when it is back")
